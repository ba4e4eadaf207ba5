"""Pages that are made from the code agree with it."""

import runpy
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.parametrize("name", ["settings.md", "errors.md", "what-ends.md"])
def test_a_generated_page_is_what_the_code_says(name: str) -> None:
    """After changing a setting or an error: `python docs/generate.py`."""
    pages = runpy.run_path(str(DOCS / "generate.py"))["PAGES"]
    assert (DOCS / name).read_text("utf-8") == pages[name]()
