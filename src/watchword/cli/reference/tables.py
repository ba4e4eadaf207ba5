"""Tables of Markdown, and what every page made from the code has in common."""

from collections.abc import Iterable, Sequence

MADE = "Made from the code by `watchword docs`; edit the code, not the page."


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table. What would end a cell is escaped."""
    return [
        _line(heads),
        "|" + "---|" * len(heads),
        *(_line([cell.replace("|", "\\|") for cell in row]) for row in rows),
    ]


def first_paragraph(text: str | None) -> str:
    """What a docstring says first, on one line."""
    return " ".join((text or "").split("\n\n")[0].split())


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
