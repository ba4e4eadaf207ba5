"""Finds by itself what we hand out and what takes something in: whoever adds one must say so."""

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import watchword
from watchword.http.cookies import Cookies
from watchword.kernel.principal import Credential

SOURCE = Path(watchword.__file__).parent

_PREFIX = re.compile(r"\bww[a-z]_")
_TYPE = re.compile(r"[a-z.-]+\+jwt")

# Fields that prove nothing: what a person knows, or says.
PLAIN = {
    *("email", "new_email", "username", "password", "current_password", "new_password"),
    *("transport", "method", "name", "device_name", "locale"),
}
PLAIN_HEADERS = {  # of proxies, and the id that they give a request
    *("x-forwarded-for", "x-forwarded-proto", "x-forwarded", "x-real-ip", "x-client-ip"),
    *("x-url-scheme", "x-request-id"),
}
PLAIN_QUERIES = {"limit", "after"}  # a place in a list of one's own things
PLAIN_IDS = re.compile(r"(\w+_)?id")  # names a thing of one's own; another's is 404


def kinds() -> set[str]:
    """Every prefix, JWT type and purpose of a signature that the source code names."""
    found: set[str] = set()
    for path in SOURCE.rglob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        told = {id(text) for text in _docstrings(tree)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.update(_PREFIX.findall(node.value) if id(node) not in told else ())
                if _TYPE.fullmatch(node.value):
                    found.add(node.value)
            elif isinstance(node, ast.Call):
                found.update(f"signed:{purpose}" for purpose in _signed(node))
    return found


def _docstrings(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr):
            yield node.value


def _signed(call: ast.Call) -> Iterator[str]:
    """The purpose of `Signer(secrets, purpose)` or `wiring.signer(purpose)`, up to what varies."""
    name = getattr(call.func, "id", getattr(call.func, "attr", ""))
    if name.lower() != "signer":
        return
    for given in call.args:
        if isinstance(given, ast.Constant) and isinstance(given.value, str):
            yield given.value
        elif isinstance(given, ast.JoinedStr) and isinstance(given.values[0], ast.Constant):
            yield str(given.values[0].value)


def consumers(openapi: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Every place where something that proves may be presented; how, for those in a body."""
    found: dict[str, dict[str, Any]] = {
        f"Authorization where {kind} counts": {} for kind in get_args(Credential)
    }
    found |= {f"cookie {each.name}": {} for each in fields(Cookies)}
    found |= {f"header {name}": {} for name in _headers() - PLAIN_HEADERS}
    found["form field csrf_token"] = {}
    for path, operations in openapi["paths"].items():
        for method, operation in operations.items():
            for name in _queries(operation):
                found[f"query {name} of {method.upper()} {path}"] = {}
            for kind, model in _models(operation, openapi):
                properties = model.get("properties", {})
                for field in properties:
                    if field not in PLAIN and _is_text(properties[field]):
                        place = "" if kind == "application/json" else f" as {kind}"
                        found[f"{method.upper()} {path} {field}{place}"] = {
                            "method": method,
                            "path": path,
                            "field": field,
                            "fields": set(properties),
                            "needs_session": bool(operation.get("security")),
                        }
    return found


def _headers() -> set[str]:
    """Headers beyond the standard's that our HTTP layer reads."""
    found: set[str] = set()
    for path in (SOURCE / "http").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, bytes):
                name = node.value.decode("latin-1")
                found.update([name] if re.fullmatch(r"x-[a-z-]+", name) else ())
    return found


def _queries(operation: dict[str, Any]) -> Iterator[str]:
    for parameter in operation.get("parameters", ()):
        name = parameter["name"]
        plain = PLAIN_IDS.fullmatch(name) if parameter["in"] == "path" else name in PLAIN_QUERIES
        if not plain:
            yield name


def _models(operation: dict[str, Any], openapi: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        for schema in (content["schema"], *content["schema"].get("anyOf", ())):
            name = schema.get("$ref", "").rpartition("/")[2]
            yield kind, openapi["components"]["schemas"][name] if name else schema


def _is_text(schema: dict[str, Any]) -> bool:
    """Could a token stand here? Dates, enumerations and words of a fixed form are no place."""
    options = [schema, *schema.get("anyOf", ())]
    return any(
        each.get("type") == "string" and not {"enum", "const"} & each.keys() for each in options
    ) and not any(each.get("format") in ("date-time", "duration") for each in options)
