"""The package's own source, for what only the text of it says."""

import ast
import functools
import importlib
import pkgutil
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import watchword

_NOT_OURS = "watchword.testing"  # what only tests and their authors meet

_CODE = re.compile(r"[a-z]+(_[a-z]+)+")
_ASKING = frozenset({"isinstance", "issubclass", "join", "on"})  # for an event, not with one


@dataclass(frozen=True, slots=True)
class Called:
    """One place where something is called."""

    place: str  # the function or method around it; empty at the top
    call: ast.Call


def modules() -> Iterator[ModuleType]:
    """Every module that can be imported here: those of an extra only where that is installed."""
    for found in pkgutil.walk_packages(watchword.__path__, "watchword."):
        if found.name.startswith(_NOT_OURS) or found.name.endswith("__main__"):
            continue
        try:
            yield importlib.import_module(found.name)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] == "watchword":
                raise


@functools.cache
def calls() -> Mapping[str, tuple[Called, ...]]:
    """Where each name is called, by that name: `SessionStarted`, `getLogger`."""
    found: dict[str, list[Called]] = {}
    for tree in _trees():
        for place, node in _nodes(tree, ()):
            if isinstance(node, ast.Call) and (name := _name_of(node.func)) is not None:
                found.setdefault(name, []).append(Called(place, node))
    return {name: tuple(places) for name, places in found.items()}


@functools.cache
def handed_on() -> Mapping[str, frozenset[str]]:
    """The functions that choose a name or hand it on: `_event(KeyRetired, kid)`."""
    found: dict[str, set[str]] = {}
    for tree in _trees():
        for place, node in _nodes(tree, ()):
            given: list[ast.expr] = []
            if isinstance(node, ast.IfExp):
                given = [node.body, node.orelse]
            elif isinstance(node, ast.Call) and _name_of(node.func) not in _ASKING:
                given = node.args
            for each in given:
                if isinstance(each, ast.Name):
                    found.setdefault(each.id, set()).add(place)
    return {name: frozenset(places) for name, places in found.items()}


@functools.cache
def explained() -> frozenset[str]:
    """The codes that stand in a pair with their meaning: `("not_a_text", "has no text")`."""
    return frozenset(
        node.elts[0].value
        for tree in _trees()
        for _, node in _nodes(tree, ())
        if isinstance(node, ast.Tuple) and _is_code_and_meaning(node.elts)
        if isinstance(node.elts[0], ast.Constant) and isinstance(node.elts[0].value, str)
    )


def _is_code_and_meaning(parts: list[ast.expr]) -> bool:
    texts = [part.value for part in parts if isinstance(part, ast.Constant)]
    texts = [text for text in texts if isinstance(text, str)]
    return len(parts) == len(texts) == 2 and bool(_CODE.fullmatch(texts[0])) and " " in texts[1]


def _trees() -> Iterator[ast.Module]:
    root = Path(watchword.__file__).parent
    for path in sorted(root.rglob("*.py")):
        if path.relative_to(root).parts[0] != "testing":
            yield ast.parse(path.read_text("utf-8"))


def _nodes(node: ast.AST, around: tuple[str, ...]) -> Iterator[tuple[str, ast.AST]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _nodes(child, (*around, child.name))
            continue
        yield ".".join(around), child
        yield from _nodes(child, around)


def _name_of(node: ast.AST) -> str | None:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else None


def literal(call: ast.Call, position: int, name: str) -> str | None:
    """A text given as the argument at this position, or of this name."""
    given = call.args[position : position + 1]
    given += [each.value for each in call.keywords if each.arg == name]
    for each in given:
        if isinstance(each, ast.Constant) and isinstance(each.value, str):
            return each.value
    return None
