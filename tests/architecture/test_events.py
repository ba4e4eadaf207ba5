"""Events: what a service does, somebody hears of. Read from the source itself."""

import ast
import importlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

import watchword.features
from watchword.crypto.keys import RootSecrets, generate_secret
from watchword.features.audit import AuthAction, line_of
from watchword.features.audit.entries import Writer
from watchword.kernel.events import Event
from watchword.kernel.secrets import Digest, Secret

FEATURES = Path(watchword.features.__path__[0])
EVENTS = sorted(FEATURES.glob("*/events.py"))
WRITES = {"insert", "update", "take", "put", "erase", "increment"}
STORES = {"store", "tx", "transaction", "within", "outbox"}

SILENT = {
    "api_keys.ApiKeys.authenticate": "notes when a key was last used",
    "audit.Audit.erase": "leaves nothing of a person who is gone: UserDeleted said so",
    "audit.Seals.seal": "the seal says so itself, and the log",
    "email_change.EmailChanges.compose": "makes the token of a mail: whoever asked was announced",
    "email_change.EmailChanges.compose_undo": "makes the token of a mail: EmailChanged said so",
    "keys.Keys.refresh": "notes how long a key must be believed, at most",
    "keys.Keys.signing": "notes how long a key must be believed, at most",
    "lockout.Lockout.release": "takes a count back; what locks is announced with the failure",
    "lockout.Lockout.reserve": "counts; what locks is announced with the failure",
    "passwords.Passwords.forget": "part of a first proof (I-13), which AddressProven announces",
    "recovery.Recovery.compose": "makes the token of a mail: whoever asked was announced",
    "sessions.Devices.add": "part of a sign-in, which announces",
    "sessions.Devices.carry": "part of what raised the epoch, which announces",
    "sessions.Devices.met": "part of a sign-in, which announces",
    "sessions.Devices.name": "part of naming a device, which announces",
    "sessions.Sessions.carry": "part of what raised the epoch, which announces",
    "sign_in.SignIns.carry": "part of what raised the epoch, which announces",
    "sign_in.SignIns.credit": "a factor among others: the session's event names them all",
    "tokens.Tokens.forget_successors": "what it erases opens nothing any more",
    "users.Users.give_back": "takes back what was not done after all",
    "users.Users.hold": "changes nothing: it takes the row before others do",
    "verification.Verification.compose": "makes the token of a mail: whoever asked was announced",
    "webhooks.Webhooks.keep": "hears of all others",
    "webhooks.Webhooks.retry": "sends once more what was announced",
}
"""Verbs that write and announce nothing, each with the reason."""


@dataclass
class Method:
    """What one method of a service does."""

    feature: str
    service: str
    name: str
    writes: bool = False
    announces: bool = False
    own: set[str] = field(default_factory=set[str])  # what it calls of its own class
    others: set[str] = field(default_factory=set[str])

    @property
    def where(self) -> str:
        return f"{self.feature}.{self.service}.{self.name}"


def receiver(call: ast.Call) -> str:
    """`store` of `self.store.insert(…)` and of `store.insert(…)`."""
    assert isinstance(call.func, ast.Attribute)
    value = call.func.value
    if isinstance(value, ast.Attribute):
        return value.attr
    return value.id if isinstance(value, ast.Name) else ""


def read(feature: str, service: str, node: ast.AsyncFunctionDef) -> Method:
    method = Method(feature, service, node.name)
    for call in ast.walk(node):
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
            continue
        name = call.func.attr
        if name == "announce":
            method.announces = True
        elif receiver(call) in STORES:
            method.writes = method.writes or name in WRITES
        else:
            is_own = isinstance(call.func.value, ast.Name) and call.func.value.id == "self"
            (method.own if is_own else method.others).add(name)
    return method


def services() -> Iterator[Method]:
    """Every coroutine method of every class in a feature that holds a store."""
    for path in sorted(FEATURES.glob("*/*.py")):
        for node in ast.parse(path.read_text()).body:
            if not isinstance(node, ast.ClassDef):
                continue
            holds = any(
                isinstance(each, ast.AnnAssign)
                and isinstance(each.target, ast.Name)
                and each.target.id == "store"
                for each in node.body
            )
            if holds:
                for each in node.body:
                    if isinstance(each, ast.AsyncFunctionDef):
                        yield read(path.parent.name, node.name, each)


METHODS = list(services())


def reaching(start: Method, what: str) -> bool:
    """Does it write, or announce, itself or through whatever it calls?

    What it writes is followed within its class; what it announces, to every service that has a
    verb of the name that it calls.
    """
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        method = waiting.pop()
        if method.where in seen:
            continue
        seen.add(method.where)
        if getattr(method, what):
            return True
        for each in METHODS:
            is_own = (each.feature, each.service) == (method.feature, method.service)
            called = each.name in method.own if is_own else each.name in method.others
            if called and (is_own or what == "announces"):
                waiting.append(each)
    return False


def silent() -> set[str]:
    return {
        method.where
        for method in METHODS
        if not method.name.startswith("_")
        and method.name != "forget_user"  # what UserDeleted, which it hears, says already
        and reaching(method, "writes")
        and not reaching(method, "announces")
    }


@pytest.mark.capability("DEF-31", "S0-94")
def test_every_verb_that_writes_announces() -> None:
    assert len(METHODS) > 150, "the services are found"
    found = silent() - set(SILENT)
    assert not found, "announce what happens, or say in SILENT why nobody need hear of it"


def test_the_exceptions_are_still_ones() -> None:
    assert not set(SILENT) - silent()


def all_events() -> list[type[Event]]:
    """Every event of ours that is announced; not what several have in common."""
    modules = ["watchword.kernel.events"]
    modules += [f"watchword.features.{path.parent.name}.events" for path in EVENTS]
    kinds = {
        each
        for name in modules
        for each in vars(importlib.import_module(name)).values()
        if isinstance(each, type) and issubclass(each, Event) and not each.gated
    }
    announced = (kind for kind in kinds if not any(kind in each.__mro__[1:] for each in kinds))
    return sorted(announced, key=lambda kind: kind.__name__)


def made(kind: type[Event]) -> Event:
    """One of them, with a value in each field."""
    values: dict[str, Any] = {}
    for each, hint in get_type_hints(kind).items():
        if each in {field.name for field in fields(kind)}:
            values[each] = value_of(hint, f"canary.{each}.@")
    return kind(**values)


def value_of(hint: Any, text: str) -> Any:
    samples: dict[Any, Any] = {
        str: text,
        int: 1,
        bool: True,
        datetime: datetime(2026, 1, 1, tzinfo=UTC),
        timedelta: timedelta(seconds=1),
    }
    if hint in samples:
        return samples[hint]
    first = get_args(hint)[0] if get_args(hint) else None
    if first is not None and type(None) in get_args(hint):
        return value_of(first, text)
    origin = get_origin(hint)
    if origin is tuple:
        return (text,)
    if origin is Literal:
        return first
    return {} if origin in (dict, Mapping) else None


@pytest.mark.standard("14: 16.1.1, 16.2.2")
@pytest.mark.parametrize("kind", all_events(), ids=lambda kind: kind.__name__)
def test_every_event_of_ours_has_a_name_in_the_list_and_lets_no_secret_be_kept(
    kind: type[Event],
) -> None:
    named = made(kind).audited_as()
    assert named is None or named in set(AuthAction), "add it to AuthAction"
    hints = get_type_hints(kind)
    for name in kind.audited:
        assert name in hints, f"{kind.__name__} has no field {name}"
        assert hints[name] not in (Secret, Digest)
        assert not any(word in name for word in ("token", "secret", "password", "email", "digest"))


@pytest.mark.standard("14: 16.2.2", "14: 16.2.5")
@pytest.mark.parametrize("kind", all_events(), ids=lambda kind: kind.__name__)
def test_an_entry_holds_what_the_event_lets_be_kept_and_nothing_else(kind: type[Event]) -> None:
    secrets = RootSecrets(generate_secret())
    writer = Writer(realm="main", secrets=secrets, retention=timedelta(days=1), ip_mode="hash")
    event = made(kind)
    entry = writer.entry_of(event)
    if entry is None:
        assert event.audited_as() is None
        return
    line = line_of(entry, "jsonl")
    assert set(json.loads(line)) == {
        *("id", "at", "realm", "action", "event", "result", "user_id", "actor", "session_id"),
        *("request_id", "app", "account", "address", "user_agent", "details", "seal"),
    }
    kept = {field.name for field in fields(kind) if f"canary.{field.name}.@" in line}
    assert kept <= {*kind.audited, "user_id", "session_id"}
    assert (entry.result == "failure") is kind.is_failure
    assert entry.at == event.at
