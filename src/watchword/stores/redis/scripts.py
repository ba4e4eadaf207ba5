"""The scripts. Each touches the keys of one hash tag, so that a cluster would run it too.

Values come as arguments, never as part of the text. One that may be nothing comes as `-`, or as
`=` and its bytes. Numbers come in decimal and are compared as such: Lua's own are doubles and
cannot tell 2^63 - 1 from 2^63. Texts are compared byte by byte: Lua's `<` follows the server's
locale. Nothing is written before everything that may refuse has been asked.
"""

import hashlib
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True)
class Script:
    """A script and the name that the server knows it by."""

    text: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        name = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "sha", name)


_ARGUMENTS: Final = """
local at = 0
local function word()
  at = at + 1
  return ARGV[at]
end
local function number() return tonumber(word()) end
local function value()
  local said = word()
  if said == '-' then return nil end
  return string.sub(said, 2)
end
local function now()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end
"""

_CONDITIONS: Final = """
local function text_less(one, other)
  for i = 1, math.min(#one, #other) do
    local a, b = string.byte(one, i), string.byte(other, i)
    if a ~= b then return a < b end
  end
  return #one < #other
end
local function number_less(one, other)
  local is_one_below, is_other_below = string.byte(one) == 45, string.byte(other) == 45
  if is_one_below ~= is_other_below then return is_one_below end
  if is_one_below then one, other = string.sub(other, 2), string.sub(one, 2) end
  if #one ~= #other then return #one < #other end
  return text_less(one, other)
end
local function holds(key)
  local all = true
  for _ = 1, number() do
    local field, operator, less = word(), word(), text_less
    if word() == 'n' then less = number_less end
    local absent = value()
    local there = redis.call('HGET', key, field) or absent
    local given, is_one = nil, false
    for _ = 1, number() do
      given = value()
      if given == there then is_one = true end
    end
    local ok = false
    if operator == '=' or operator == 'in' then ok = is_one
    elseif operator == '!=' then ok = not is_one
    elseif there and given then
      if operator == '<' then ok = less(there, given)
      elseif operator == '<=' then ok = not less(given, there)
      elseif operator == '>' then ok = less(given, there)
      elseif operator == '>=' then ok = not less(there, given)
      end
    end
    all = all and ok
  end
  return all
end
"""

# A record goes when the field that says so is past, by the server's clock and some more.
_EXPIRY: Final = """
local function let_expire(key, field, skew)
  local at_micros = redis.call('HGET', key, field)
  if not at_micros then
    redis.call('PERSIST', key)
    return
  end
  local millis = 0
  if string.byte(at_micros) ~= 45 and #at_micros > 3 then
    millis = tonumber(string.sub(at_micros, 1, -4))
  end
  redis.call('PEXPIREAT', key, string.format('%.0f', millis + 1 + skew))
end
local function fields()
  local all = {}
  for _ = 1, number() do
    all[#all + 1] = word()
    all[#all + 1] = word()
  end
  return all
end
"""

INSERT: Final = Script(
    _ARGUMENTS
    + _EXPIRY
    + """
local key, fence, expires, skew = KEYS[1], number(), word(), number()
if now() > fence then return 'late' end
if redis.call('EXISTS', key) == 1 then return 'taken' end
redis.call('HSET', key, unpack(fields()))
let_expire(key, expires, skew)
return 'done'
"""
)
"""Add a record, unless there is one or its writer was too slow for its hints to count."""

UPDATE: Final = Script(
    _ARGUMENTS
    + _CONDITIONS
    + _EXPIRY
    + """
local key, fence, expires, skew = KEYS[1], number(), word(), number()
if redis.call('EXISTS', key) == 0 then return {'none'} end
local matches, is_as_read = holds(key), holds(key)
if not matches then return {'none'} end
if not is_as_read then return {'moved'} end
if fence > 0 and now() > fence then return {'late'} end
local raised = {}
for _ = 1, number() do
  local field, by, absent = word(), word(), value()
  local before = redis.call('HGET', key, field) or absent
  if before then
    if before == absent then redis.call('HSET', key, field, absent) end
    local answer = redis.pcall('HINCRBY', key, field, by)
    if type(answer) == 'table' and answer.err then
      for _, done in ipairs(raised) do redis.call('HSET', key, done[1], done[2]) end
      return redis.error_reply(answer.err)
    end
    raised[#raised + 1] = {field, before}
  end
end
local set, cleared = {}, {}
for _ = 1, number() do
  local field, new = word(), value()
  if new == nil then
    cleared[#cleared + 1] = field
  else
    set[#set + 1] = field
    set[#set + 1] = new
  end
end
if #set > 0 then redis.call('HSET', key, unpack(set)) end
if #cleared > 0 then redis.call('HDEL', key, unpack(cleared)) end
local after = redis.call('HGETALL', key)
let_expire(key, expires, skew)
return {'done', after}
"""
)
"""Where the conditions hold, and what the writer has read too, change the record."""

TAKE: Final = Script(
    _ARGUMENTS
    + _CONDITIONS
    + """
local key = KEYS[1]
if redis.call('EXISTS', key) == 0 or not holds(key) then return {} end
local there = redis.call('HGETALL', key)
redis.call('DEL', key)
return there
"""
)
"""Where the conditions hold, delete the record and return it."""

INCREMENT: Final = Script(
    _ARGUMENTS
    + _CONDITIONS
    + _EXPIRY
    + """
local key, fence, expires, skew = KEYS[1], number(), word(), number()
local field, by, time = word(), word(), word()
local ends = redis.call('HGET', key, expires)
if redis.call('EXISTS', key) == 1 and (not ends or number_less(time, ends)) then
  redis.call('HINCRBY', key, field, by)
  return {'done', redis.call('HGET', key, field)}
end
if fence == 0 then return {'none'} end
if now() > fence then return {'late'} end
local before = redis.call('HGETALL', key)
redis.call('DEL', key)
redis.call('HSET', key, unpack(fields()))
let_expire(key, expires, skew)
return {'made', by, before}
"""
)
"""Raise the counter that stands; without a fence, do no more than that."""

CLAIM: Final = Script(
    _ARGUMENTS
    + """
local pointer, claim, record, dies, stale = KEYS[1], word(), word(), number(), word()
local is_own = word() == 'own'
local there = redis.call('GET', pointer)
local lives = -2
if there and there ~= stale then
  local owner = string.match(there, '^%S+ (.*)$')
  if not (is_own and owner == record) then return {there, now()} end
  lives = redis.call('PTTL', pointer)
end
redis.call('SET', pointer, claim .. ' ' .. record)
if lives ~= -1 and dies > 0 then
  redis.call('PEXPIREAT', pointer, string.format('%.0f', math.max(dies, now() + lives)))
end
return {}
"""
)
"""Let a pointer name this record, unless it names one already; never lives shorter for it."""

SHORTEN: Final = Script(
    """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('PEXPIREAT', KEYS[1], ARGV[2]) end
return 0
"""
)
"""Let a pointer that nobody renewed meanwhile die sooner."""

REPLACE: Final = Script(
    """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL') end
return 0
"""
)
"""Let a pointer be another claim of the same record, if it is still this one."""

RELEASE: Final = Script(
    """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""
)
"""Remove a pointer, if it is still this very claim."""

LIST: Final = Script(
    _ARGUMENTS
    + """
local list, member, score, dies, is_by_death = KEYS[1], word(), word(), number(), word() == 'dies'
local time = now()
local lives = redis.call('PTTL', list)
if is_by_death then
  redis.call('ZADD', list, 'GT', score, member)
  local dead = redis.call('ZRANGEBYSCORE', list, '-inf', '(' .. string.format('%.0f', time),
    'LIMIT', 0, 100)
  if #dead > 0 then redis.call('ZREM', list, unpack(dead)) end
else
  redis.call('ZADD', list, score, member)
end
if dies == 0 then
  redis.call('PERSIST', list)
elseif lives == -2 or (lives >= 0 and time + lives < dies) then
  redis.call('PEXPIREAT', list, string.format('%.0f', dies))
end
return 0
"""
)
"""Add a member to a list, which lives at least as long; some of the dead ones go."""
