"""Every event: what it says, who announces it, who hears of it; and where logs are written."""

import ast
import dataclasses
import inspect
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from contextlib import chdir
from typing import Any, get_type_hints

from watchword.cli.reference.sources import calls, handed_on, literal, modules
from watchword.cli.reference.tables import MADE, first_paragraph, table
from watchword.crypto.keys import generate_secret
from watchword.features.audit.actions import AuthAction
from watchword.kernel.events import Event, snake_case
from watchword.presets import Watchword, standard

_HEAD = f"""# Events

{MADE}

Everything that happens is announced as one of these, inside the transaction that makes it true.
Partners (**bold**) write in that transaction; all others run after its commit. *Evicts*: what is
cached of whom it is about is forgotten, at every worker. *Audit*: what an entry of it is called
(`watchword audit list --action`), and in brackets what it keeps beside who, when and where.
`realm` and `at` are in each.

Your own code hears of one with `@auth.on(SessionStarted)`. Nothing else carries what happens:
events go to those named here, log lines to the loggers named at the end.
"""
_ALWAYS = ("realm", "at")


def events_page() -> str:
    """The page."""
    heard = _heard_by()
    lines = [_HEAD]
    everything = heard.pop(Event, [])
    if everything:
        lines += [f"Heard of all of them: {', '.join(everything)}.", ""]
    by_owner: dict[str, list[type[Event]]] = {}
    for kind in event_kinds():
        by_owner.setdefault(_owner(kind.__module__), []).append(kind)
    for owner, kinds in by_owner.items():
        lines += [f"## `{owner}`", ""]
        lines += table(
            ("event", "what happened", "fields", "audit", "evicts", "announced by", "heard by"),
            (_row(kind, heard) for kind in kinds),
        )
        lines.append("")
    lines += ["## Log lines", "", *_loggers(), ""]
    return "\n".join(lines)


def event_kinds() -> list[type[Event]]:
    """Every event that is announced, by the feature that has it, in the order of the code."""
    kinds: list[type[Event]] = []
    for module in modules():
        for kind in vars(module).values():
            ours = isinstance(kind, type) and kind.__module__ == module.__name__
            # Those that others are made from are never announced themselves.
            if ours and issubclass(kind, Event) and not _is_abstract(kind):
                kinds.append(kind)
    features = [feature.name for feature in standard()]

    def place(kind: type[Event]) -> int:
        owner = _owner(kind.__module__)
        return features.index(owner) if owner in features else -1

    return sorted(kinds, key=place)


def _row(kind: type[Event], heard: dict[type[Event], list[str]]) -> tuple[str, ...]:
    hints = get_type_hints(kind)
    fields = [
        f"`{field.name}: {_type(hints[field.name])}`"
        for field in dataclasses.fields(kind)
        if field.name not in _ALWAYS
    ]
    announced = {called.place for called in calls().get(kind.__name__, ())}
    announced |= handed_on().get(kind.__name__, frozenset())
    hearers = [who for each, many in heard.items() if issubclass(kind, each) for who in many]
    return (
        f"`{kind.__name__}`",
        first_paragraph(kind.__doc__) + (" *Asked of gates only.*" if kind.gated else ""),
        ", ".join(fields) or "–",
        _kept_as(kind),
        "yes" if kind.evicts else "–",
        ", ".join(f"`{place}`" for place in sorted(announced)) or "–",
        ", ".join(dict.fromkeys(hearers)) or "–",
    )


def _kept_as(kind: type[Event]) -> str:
    """What entries of the audit call it, and which of its fields they keep."""
    if kind.gated:
        return "–"
    if kind.audited_as is Event.audited_as:
        names = [snake_case(kind.__name__)]
    else:  # it depends on what the event says: all that it may be
        tree = ast.parse(textwrap.dedent(inspect.getsource(kind.audited_as)))
        texts = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
        names = [text for text in texts if text in set(AuthAction)]
    if not names:
        return "–"
    fields = f" ({', '.join(kind.audited)})" if kind.audited else ""
    return ", ".join(f"`{name}`" for name in dict.fromkeys(names)) + fields


def _type(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not hasattr(hint, "__args__") else str(hint)


def _heard_by() -> dict[type[Event], list[str]]:
    """Who hears of what in `standard()`: partners in bold."""
    # An App as it comes, whatever watchword.toml lies where the command is run.
    with tempfile.TemporaryDirectory() as nowhere, chdir(nowhere):
        auth = Watchword(
            "sqlite://",
            features=standard(),
            secret=generate_secret(),
            public_url="https://localhost",
            environ={},
        )
    auth.hash_pool.close()
    found: dict[type[Event], list[str]] = {}
    for kind, listener, is_partner in auth.events.listeners():
        name = f"`{_owner(_module(listener))}`"
        found.setdefault(kind, []).append(f"**{name}**" if is_partner else name)
    return {kind: list(dict.fromkeys(names)) for kind, names in found.items()}


def _module(listener: Callable[..., Any]) -> str:
    return str(getattr(listener, "__module__", None) or type(listener).__module__)


def _owner(module: str) -> str:
    """The feature that a module belongs to; else the part of the package."""
    parts = module.split(".")
    return parts[2] if parts[1] == "features" else parts[1]


def _is_abstract(kind: type[Event]) -> bool:
    return kind is Event or (bool(kind.__subclasses__()) and kind.__name__ not in calls())


def _loggers() -> Iterator[str]:
    """The loggers that the code asks for."""
    found = {literal(called.call, 0, "name") for called in calls().get("getLogger", ())}
    names = sorted(name for name in found if name and name.startswith("watchword"))
    yield "Through Python's `logging`; none of them is given a password, token, code or key."
    yield ""
    for name in names:
        yield f"- `{name}`"
