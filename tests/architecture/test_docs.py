"""Pages that are made from the code agree with it."""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


@pytest.mark.parametrize("name", ["settings.md", "errors.md", "what-ends.md"])
def test_a_generated_page_is_what_the_code_says(name: str) -> None:
    """After changing a setting or an error: `python docs/generate.py`."""
    pages = runpy.run_path(str(DOCS / "generate.py"))["PAGES"]
    assert (DOCS / name).read_text("utf-8") == pages[name]()


KEEPING = ("localStorage", "sessionStorage", "indexedDB")


@pytest.mark.capability("S4-39")
def test_no_page_or_example_of_ours_keeps_anything_where_scripts_can_read_it() -> None:
    told = (DOCS / "features" / "tokens.md").read_text("utf-8")
    assert "in `localStorage` or `sessionStorage`" in told
    shown = [
        path
        for folder in ("src", "examples")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".html", ".js", ".ts", ".py"} and path.is_file()
    ]
    assert len(shown) > 100
    keeping = [
        path.name
        for path in shown
        if any(word in path.read_text("utf-8", "replace") for word in KEEPING)
    ]
    assert keeping == []
