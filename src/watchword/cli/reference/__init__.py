"""The pages of `docs/` that are made from the code."""

from collections.abc import Callable, Mapping
from pathlib import Path

from watchword.cli.reference.commands import commands_page
from watchword.cli.reference.endings import endings_page
from watchword.cli.reference.errors import errors_page
from watchword.cli.reference.events import events_page
from watchword.cli.reference.settings import settings_page

PAGES: Mapping[str, Callable[[], str]] = {
    "reference/settings.md": settings_page,
    "reference/errors.md": errors_page,
    "reference/events.md": events_page,
    "reference/cli.md": commands_page,
    "what-ends.md": endings_page,
}
"""What each page of a folder of docs says, by its path in there."""


def write_pages(folder: Path) -> list[Path]:
    """Write every page that is not yet as the code has it; those that were written."""
    written = stale_pages(folder)
    for path in written:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(PAGES[path.relative_to(folder).as_posix()](), "utf-8")
    return written


def stale_pages(folder: Path) -> list[Path]:
    """The pages that are missing, or say what the code does not."""
    return [folder / name for name, page in PAGES.items() if _text_of(folder / name) != page()]


def _text_of(path: Path) -> str | None:
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        return None


__all__ = ["PAGES", "stale_pages", "write_pages"]
