"""Is this a server to keep sessions on? Asked once, when the driver opens."""

import logging
from collections.abc import Mapping
from typing import Final

from watchword.kernel.errors import ConfigurationError, StoreUnavailable
from watchword.storage.errors import SchemaNewer
from watchword.stores.redis.link import Link

MAJOR: Final = 1
"""The major version of the layout: raised when a change is more than an addition."""

OLDEST: Final = (6, 2)

_log: Final = logging.getLogger("watchword.stores.redis")


async def check(link: Link) -> None:
    """Refuse a server that forgets, that follows another, or that is too old.

    Raises:
        ConfigurationError: it must be set otherwise; says how.
        SchemaNewer: a newer major version keeps its records here.
        StoreUnavailable
    """
    said = await _info(link)
    faults = [fault for fault in (_version(said), _mode(said), _policy(said)) if fault]
    if faults:
        raise ConfigurationError(faults)
    if said.get("role") != "master":
        raise StoreUnavailable("the server is a replica (role): use the primary")
    await _warn(link, said)
    key = f"{link.target.prefix}:schema"
    _, held = await link.write(("SET", key, MAJOR, "NX"), ("GET", key))
    if not held.isdigit() or int(held) > MAJOR:
        raise SchemaNewer(
            f"the layout is of version {held[:20].decode(errors='replace')}, "
            f"this program knows {MAJOR}"
        )


def _version(said: Mapping[str, str]) -> str | None:
    parts = said.get("redis_version", "").split(".")
    version = tuple(int(part) for part in parts[:2] if part.isdigit())
    if version >= OLDEST:
        return None
    return f"redis: the server is version {said.get('redis_version')}, 6.2 or newer is needed"


def _mode(said: Mapping[str, str]) -> str | None:
    if said.get("cluster_enabled", "0") == "0":
        return None
    return "redis: the server is part of a Redis Cluster, which is not supported: use a single one"


def _policy(said: Mapping[str, str]) -> str | None:
    """An evicted session signs somebody out; an evicted counter lets an attacker go on."""
    policy = said.get("maxmemory_policy")
    if policy == "noeviction":
        return None
    remedy = "set `maxmemory-policy noeviction` on it, or use a server of its own for this"
    if policy is None:
        return f"redis: the server does not tell its maxmemory-policy (INFO memory): {remedy}"
    return f"redis: the server's maxmemory-policy is {policy}, so it may drop records: {remedy}"


async def _warn(link: Link, said: Mapping[str, str]) -> None:
    if said.get("aof_enabled") == "1":
        if await _setting(link, "appendfsync") != "always":
            _log.info(
                "redis: appendfsync is not always: a crash of the server may undo its last second"
            )
        return
    if await _setting(link, "save") == "":
        _log.warning("redis: persistence is off: a restart of the server signs everybody out")
    else:
        _log.warning(
            "redis: appendonly is off: a crash of the server undoes all since its last snapshot"
        )


async def _info(link: Link) -> dict[str, str]:
    fault: str | None = None
    try:
        answers = await link.write(*(("INFO", part) for part in _PARTS))
    except StoreUnavailable as error:
        if "NoPermission" not in (error.note or ""):
            raise
        fault = (
            "redis: the user may not run INFO, so the server's settings cannot be seen: allow it"
        )
    else:
        lines = b"\n".join(answers).decode(errors="replace").splitlines()
        pairs = (line.partition(":") for line in lines if ":" in line)
        said = {name: value.strip() for name, _, value in pairs}
        if "maxmemory_policy" not in said:
            policy = await _setting(link, "maxmemory-policy")
            said |= {} if policy is None else {"maxmemory_policy": policy}
        return said
    raise ConfigurationError([fault])


_PARTS: Final = ("server", "replication", "memory", "persistence", "cluster")


async def _setting(link: Link, name: str) -> str | None:
    """A setting of the server; None where it may not be asked for."""
    try:
        (answer,) = await link.write(("CONFIG", "GET", name))
    except Exception:  # noqa: BLE001 a managed server may know no CONFIG at all
        return None
    return answer[1].decode(errors="replace") if len(answer) == 2 else None
