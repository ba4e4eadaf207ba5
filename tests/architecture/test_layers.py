"""Layers: what import-linter's contracts cannot say, read from the source itself."""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "watchword"
FEATURES = sorted(path.parent.name for path in (PACKAGE / "features").glob("*/__init__.py"))
BELOW_PRESETS = ("kernel", "crypto", "storage", "stores", "http", "features", "app.py")
WITHOUT_HTTP = ("service.py", "records.py", "settings.py", "errors.py", "events.py")


def imported(path: Path) -> Iterator[str]:
    """Dotted names that a file imports: `from a import b` gives both `a` and `a.b`."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""


def names_of_packages(path: Path) -> Iterator[str]:
    """As `imported`, but `from watchword.features import users` counts as that feature."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.ImportFrom) and node.module == "watchword.features":
            yield from (f"watchword.features.{alias.name}" for alias in node.names)
    yield from imported(path)


def needs_of(feature: str) -> set[str]:
    """The strings that a feature's folder writes after `needs=`."""
    return {
        constant.value
        for path in (PACKAGE / "features" / feature).rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call)
        for keyword in call.keywords
        if keyword.arg == "needs"
        for constant in ast.walk(keyword.value)
        if isinstance(constant, ast.Constant) and isinstance(constant.value, str)
    }


def test_there_are_features_to_look_at() -> None:
    assert FEATURES


@pytest.mark.parametrize("feature", FEATURES)
def test_a_feature_imports_only_the_front_of_features_that_it_needs(feature: str) -> None:
    needs = needs_of(feature)
    for path in (PACKAGE / "features" / feature).rglob("*.py"):
        for name in names_of_packages(path):
            parts = name.split(".")
            if parts[:2] != ["watchword", "features"] or len(parts) < 3 or parts[2] == feature:
                continue
            where = path.relative_to(PACKAGE)
            assert len(parts) == 3, f"{where} reaches into {name}: import from its __init__"
            assert parts[2] in needs, f"{where} imports {name}, which {feature} does not need"


@pytest.mark.parametrize("feature", FEATURES)
def test_services_know_no_http(feature: str) -> None:
    for name in WITHOUT_HTTP:
        path = PACKAGE / "features" / feature / name
        if path.exists():
            known = {
                each
                for each in imported(path)
                if each.split(".")[0] in {"fastapi", "starlette"}
                or each.startswith("watchword.http")
            }
            assert not known, f"{path.relative_to(PACKAGE)} imports {known}"


@pytest.mark.parametrize("part", BELOW_PRESETS)
def test_nothing_below_the_presets_imports_the_public_face(part: str) -> None:
    start = PACKAGE / part
    for path in [start] if start.is_file() else sorted(start.rglob("*.py")):
        assert "watchword" not in set(imported(path)), f"{path.relative_to(PACKAGE)}"


def test_the_contracts_cover_every_part_of_the_package() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
        "contracts"
    ]
    parts = {
        path.stem
        for path in PACKAGE.iterdir()
        if (path.is_dir() and (path / "__init__.py").exists()) or path.suffix == ".py"
    } - {"__init__", "__main__"}
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    layered = {part.strip() for layer in layers for part in layer.split("|")}
    assert parts == layered

    def sources(forbidden: str) -> set[str]:
        return {
            module.removeprefix("watchword.")
            for contract in contracts
            if forbidden in contract.get("forbidden_modules", ())
            for module in contract["source_modules"]
        }

    assert parts - sources("sqlalchemy") == {"stores", "testing"}
    assert parts - sources("joserfc") == {"crypto"}
