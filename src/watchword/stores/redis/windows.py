"""Windows of tries, by one script: all keys of one attempt in one round trip (I-20).

    watchword:w:{main}:<keyed hash>      tries in the newest slot, and the time of each slot

The times are those of whoever counts: of the server's clock nothing is taken but the key's death,
a little later than its window is over.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from watchword.storage.windows import Ask, Outcome, Seen, Window, micros
from watchword.stores.redis.link import Call, Link
from watchword.stores.redis.scripts import Script

# Lua's numbers are doubles: microseconds since 1970 fit until the year 2255.
TAKE_WINDOWS: Final = Script(
    """
local now, skew = tonumber(ARGV[1]), tonumber(ARGV[2])
local found, is_full = {}, false
local function keep(one)
  local words = {string.format('%.0f', one.last)}
  for i, at in ipairs(one.times) do words[i + 1] = string.format('%.0f', at) end
  local lives = math.ceil((one.times[#one.times] + one.window - now) / 1000) + skew
  redis.call('SET', one.key, table.concat(words, ' '), 'PX', string.format('%.0f', lives))
end
for i, key in ipairs(KEYS) do
  local at = 3 * i
  local one = {key = key, times = {}, last = 0, tries = tonumber(ARGV[at]),
    group = tonumber(ARGV[at + 1]), window = tonumber(ARGV[at + 2])}
  local there = redis.call('GET', key)
  if there then
    local numbers = {}
    for word in string.gmatch(there, '%S+') do numbers[#numbers + 1] = tonumber(word) end
    one.last = numbers[1]
    local is_far = numbers[#numbers] > now + one.window
    for n = 2, #numbers do
      one.times[n - 1] = is_far and math.min(numbers[n], now) or numbers[n]
    end
    if is_far then keep(one) end
    while one.times[1] and one.times[1] <= now - one.window do table.remove(one.times, 1) end
  end
  one.used = 0
  if #one.times > 0 then one.used = (#one.times - 1) * one.group + one.last end
  if one.used >= one.tries then is_full = true end
  found[i] = one
end
local said = {is_full and 0 or 1}
for _, one in ipairs(found) do
  if not is_full then
    local n, time = #one.times, now
    if n > 0 and one.times[n] > time then time = one.times[n] end
    if n > 0 and one.last < one.group then
      one.times[n] = time
      one.last = one.last + 1
    else
      one.times[n + 1] = time
      one.last = 1
    end
    one.used = one.used + 1
    keep(one)
  end
  local opens = 0
  if #one.times > 0 then opens = one.times[1] + one.window - now end
  said[#said + 1] = one.used
  said[#said + 1] = string.format('%.0f', opens)
end
return said
"""
)
"""Count one try at every key, unless one of them is full."""


class RedisWindows:
    """Windows of one realm on one Redis server."""

    is_shared = True

    def __init__(self, link: Link, realm: str) -> None:
        self._link = link
        self._lead = f"{link.target.prefix}:w:{{{realm}}}:".encode()
        self._skew = b"%d" % int(link.target.clock_skew * 1000)

    async def take(self, asks: Sequence[Ask], *, now: datetime) -> Outcome:
        """Count one try at all of these keys, unless one of them is full."""
        arguments = [b"%d" % micros(now), self._skew]
        for ask in asks:
            arguments += (b"%d" % ask.tries, b"%d" % ask.group, b"%d" % ask.window)
        keys = tuple(self._key(ask.key) for ask in asks)
        (said,) = await self._link.write(Call(TAKE_WINDOWS, keys, tuple(arguments)))
        seen = tuple(
            Seen(int(used), int(opens), is_full=int(used) >= ask.tries)
            for ask, used, opens in zip(asks, said[1::2], said[2::2], strict=True)
        )
        return Outcome(is_counted=bool(said[0]), seen=seen)

    async def look(self, asks: Sequence[Ask], *, now: datetime) -> tuple[Seen, ...]:
        """How these keys stand; nothing is counted."""
        at = micros(now)
        answers = await self._link.read(*(("GET", self._key(ask.key)) for ask in asks))
        seen: list[Seen] = []
        for ask, answer in zip(asks, answers, strict=True):
            last, *times = [int(word) for word in (answer or b"0").split()]
            window = Window(times, last)
            window.mend(ask, at)
            seen.append(window.seen(ask, at))
        return tuple(seen)

    async def forget(self, keys: Sequence[str]) -> None:
        """Let these begin anew."""
        if keys:
            await self._link.write(("DEL", *(self._key(key) for key in keys)))

    def _key(self, key: str) -> bytes:
        return self._lead + key.encode()
