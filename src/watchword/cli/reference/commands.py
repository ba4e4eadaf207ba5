"""Every command, with its arguments and options, from the command line itself."""

from collections.abc import Iterator
from typing import Any

import typer

from watchword.cli.reference.tables import MADE, table

_HEAD = f"""# Commands

{MADE}

What they are for, and how they find the database: [the command line](../cli.md). Every command
takes `--help`.
"""


def commands_page() -> str:
    """The page."""
    from watchword.cli.app import app  # noqa: PLC0415  it has this very command in it

    lines = [_HEAD]
    for words, command in _commands(typer.main.get_command(app), ("watchword",)):
        lines += _section(words, command)
    return "\n".join(lines)


def _commands(command: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The command and those below it, in the order in which `--help` lists them."""
    below = getattr(command, "commands", None)
    if below is None:
        yield words, command
        return
    for name, each in below.items():
        if not each.hidden:
            yield from _commands(each, (*words, name))


def _section(words: tuple[str, ...], command: Any) -> Iterator[str]:
    context = typer.Context(command, info_name=" ".join(words))
    options: list[tuple[str, str]] = []
    usage: list[str] = []
    for each in command.params:
        # Of arguments: options have none. What must be there comes in braces.
        usage += [
            piece.strip("{}").replace("[[", "[").replace("]]", "]")
            for piece in each.get_usage_pieces(context)
        ]
        record = each.get_help_record(context)
        if record is not None and "--help" not in each.opts:
            options.append((f"`{record[0]}`", " ".join(record[1].split())))
    yield f"## `{' '.join((*words, *usage))}`"
    yield ""
    yield (command.help or "").strip()
    yield ""
    if options:
        yield from table(("option", "meaning"), options)
        yield ""
