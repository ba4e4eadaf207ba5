"""A feature is a value: what it adds, needs and offers, in one record."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Generic, Literal, TypeVar

from watchword.kernel.errors import ConfigurationError
from watchword.kernel.secrets import Secret
from watchword.kernel.settings import Settings

S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Work in the background, correct when two run it at once (I-24)."""

    name: str
    every: timedelta
    run: Callable[[], Awaitable[bool]]  # True: there is more, come back at once
    wake: Callable[[], Awaitable[None]] | None = None  # returns when there is work; a mere hint


Safeguard = Literal["limiter", "events"]
"""What production does not start without: limits on tries, and a place where events are kept."""

Reach = Literal["all", "others", "this", "oldest", "none"]
"""How much of a user's ends: everything, everything but what was used to do it, that one alone,
the oldest past the limit, or nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """One thing that happens, and what is over with it.

    Declared by the feature that does it. docs/what-ends.md is made of these, and
    tests/attacks/test_endings.py does each of them and looks at every column.
    """

    name: str  # what the tests call it
    what: str  # what it is called in the docs
    sessions: Reach  # with their cookies
    refresh_tokens: Reach
    access_tokens: Reach | None = None  # None: as the sessions that they point at
    api_keys: Reach = "none"
    challenges: Reach = "none"
    services: Reach = "none"  # tokens of services: nobody's, so a user's endings leave them
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Feature(Generic[S]):
    """What one slice adds to an App.

    `service` builds the slice's verbs from what the App wires; the other callables get that
    service. `offers` maps a port (a protocol that another slice asks for) to what answers it, or
    to a tuple of several that do. `apart` gets the slice's settings and names the URLs of records
    that live outside the database; `carries_identities` says whether what the gate caches is read
    from them. `ends` says what of a user's is over when, for docs and tests.
    Production does not start without what `wants` names (I-22); a feature with a setting `enabled`
    that is off provides nothing.
    """

    name: str
    service: Callable[[Any], S]
    settings: type[Settings] = Settings
    given: Mapping[str, object] = field(default_factory=dict[str, object])
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    records: tuple[type, ...] = ()
    apart: Callable[[Any], Mapping[type, Secret]] | None = None
    carries_identities: bool = True
    offers: Callable[[S], Mapping[type, object]] | None = None
    listens: Callable[[S, Any], None] | None = None
    routes: Callable[[S, Any], Any] | None = None
    jobs: Callable[[S], Sequence[Job]] | None = None
    commands: Any = None
    ends: tuple[Ends, ...] = ()
    provides: tuple[Safeguard, ...] = ()
    wants: tuple[Safeguard, ...] = ()


def ordered(features: Iterable[Feature[Any]]) -> tuple[Feature[Any], ...]:
    """Sort so that each comes after what it needs, whatever the order given.

    Raises:
        ConfigurationError: a name twice, a need that is not there, or a circle.
    """
    by_name: dict[str, Feature[Any]] = {}
    faults: list[str] = []
    for feature in features:
        if feature.name in by_name:
            faults.append(f"feature {feature.name!r} is given twice: keep one")
        by_name[feature.name] = feature
    for feature in by_name.values():
        faults.extend(
            f"feature {feature.name!r} needs {need!r}: add {need}() to features"
            for need in feature.needs
            if need not in by_name
        )
    if faults:
        raise ConfigurationError(faults)
    done: dict[str, Feature[Any]] = {}
    waiting = sorted(by_name.values(), key=lambda f: f.name)
    while waiting:
        ready = [
            f for f in waiting if all(n in done or n not in by_name for n in (*f.needs, *f.after))
        ]
        if not ready:
            names = ", ".join(f.name for f in waiting)
            raise ConfigurationError([f"features need one another in a circle: {names}"])
        for feature in ready:
            done[feature.name] = feature
            waiting.remove(feature)
    return tuple(done.values())
