"""What `watchword import` keeps of itself: its place, its report, and what it says meanwhile."""

import contextlib
import json
import os
import time
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Protocol, TextIO

import typer
from rich.console import Console

from watchword.cli.failures import Usage
from watchword.features.transfer import Place, Refusal, Tally

_SAID_EVERY: Final = 2.0  # seconds, where nobody looks at a screen

REASONS: Final = {
    "no_address": "no e-mail address",
    "bad_address": "not exactly one plain e-mail address",
    "duplicate": "the address or the id came before in this source",
    "unknown_hash": "the password is in no form that is accepted",
    "hash_too_dear": "the password's hash takes too much time or memory to check",
    "plain_password": "a password as it is: those are never read",
    "email_taken": "the address is another user's here",
    "id_taken": "the id is another user's here",
    "bad_id": "the id is no text of 1 to 255 visible characters, and no whole number",
    "no_username": "no name, and users.username_required asks for one",
    "bad_field": "a field that cannot be; the report names it",
    "not_json": "not JSON",
    "not_an_object": "JSON, but no object",
    "repeated_key": "an object that names a field twice",
    "not_csv": "not CSV, or a cell over 128 KiB",
    "open_quote": "a quote that is never closed: nothing after this line was read",
    "wrong_width": "not as many cells as the head has columns",
    "line_too_long": "longer than 1 MiB",
    "not_utf8": "not UTF-8",
    "nul_character": "a NUL character",
}
"""Why a row was refused, in words."""


@dataclass(slots=True, kw_only=True)
class Journal:
    """Where a run is, kept in a file so that the next one goes on there."""

    path: Path | None
    source: str  # digests: another source or target has another journal
    target: str
    place: Place | None = None
    tally: Tally = field(default_factory=Tally)

    @property
    def goes_on(self) -> bool:
        """Was a run before this one stopped?"""
        return self.place is not None

    def open(self) -> None:
        """Read what a run before this one left.

        Raises:
            Usage: it is of another source, or none of ours.
        """
        if self.path is None or not self.path.exists():
            return
        try:
            found: Any = json.loads(self.path.read_text("utf-8"))
            same = (found["source"], found["target"]) == (self.source, self.target)
            tally: Any = found["tally"]
            self.tally = Tally(
                read=int(tally["read"]),
                created=int(tally["created"]),
                already_there=int(tally["already_there"]),
                without_password=int(tally["without_password"]),
                kinds=Counter(tally["kinds"]),
                refused=Counter(tally["refused"]),
            )
            place: Any = found["place"]
            if isinstance(place, bool) or not isinstance(place, str | int | None):
                raise TypeError("no place")
            self.place = place
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise Usage(f"--resume {self.path} is no place that an import left") from error
        if not same:
            raise Usage(f"--resume {self.path} belongs to another source or database: remove it")

    def keep(self, place: Place) -> None:
        """All up to this place is committed."""
        self.place = place
        if self.path is None:
            return
        written = {
            "source": self.source,
            "target": self.target,
            "place": place,
            "tally": {each.name: getattr(self.tally, each.name) for each in fields(Tally)},
        }
        beside = self.path.with_name(f"{self.path.name}.new")
        beside.unlink(missing_ok=True)  # of a run that was killed, or a link to somewhere else
        with made_private(beside, option="--resume") as file:
            file.write(json.dumps(written))
        beside.replace(self.path)

    def close(self) -> None:
        """The source came to its end: there is nothing to go on with."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


@contextmanager
def made_private(path: Path, *, option: str, again: bool = False) -> Generator[TextIO]:
    """A file for this user only, which is not there yet, or is gone on with `again`.

    Raises:
        Usage: it is there, or cannot be made.
    """
    # In a folder of many a name may be a link to a file that only we may write to.
    flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    try:
        descriptor = os.open(path, flags | (os.O_APPEND if again else os.O_EXCL), 0o600)
    except FileExistsError as error:
        raise Usage(f"{option} {path}: the file is there; name another one") from error
    except OSError as error:
        raise Usage(f"{option} {path} cannot be made: {error.strerror}") from error
    with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
        if os.fstat(descriptor).st_nlink > 1:
            raise Usage(f"{option} {path} cannot be made: the file has another name too")
        yield file


def report(file: TextIO | None, refusals: Sequence[Refusal]) -> None:
    """Write one line of JSON a refused row: its number and why, nothing of what it holds."""
    if file is None:
        return
    for refusal in refusals:
        line: dict[str, Any] = {"line": refusal.line, "reason": refusal.reason}
        if refusal.field is not None:
            line["field"] = refusal.field
        file.write(json.dumps(line) + "\n")
    file.flush()


class Said(Protocol):
    """Something that tells how far a run is."""

    def __call__(self, tally: Tally) -> None: ...


@contextmanager
def telling(*, began: float) -> Generator[Said]:
    """Tell how far it is: a line that moves where somebody looks, else one every two seconds."""
    console = Console(stderr=True)

    def text(tally: Tally) -> str:
        rate = tally.read / max(time.monotonic() - began, 0.001)
        return (
            f"{tally.read:,} rows · {tally.created:,} new · {tally.already_there:,} there · "
            f"{tally.refused.total():,} refused · {rate:,.0f} a second"
        )

    with contextlib.ExitStack() as stack:
        if console.is_terminal:
            status = stack.enter_context(console.status("Reading"))
            yield lambda tally: status.update(text(tally))
            return
        last = began

        def say(tally: Tally) -> None:
            nonlocal last
            if time.monotonic() - last >= _SAID_EVERY:
                last = time.monotonic()
                typer.echo(text(tally), err=True)

        yield say


def summary(tally: Tally, *, source: str, target: str, seconds: float, dry: bool) -> list[str]:
    """What became of the rows, for people."""
    rate = tally.read / max(seconds, 0.001)
    lines = [
        f"Read {tally.read:,} rows of {source}: {rate:,.0f} a second",
        f"{'Would create' if dry else 'Created'} {tally.created:,} users in {target}",
    ]
    if tally.already_there:
        lines.append(f"Already there: {tally.already_there:,}")
    if tally.kinds:
        kinds = " · ".join(f"{kind} {many:,}" for kind, many in tally.kinds.most_common())
        lines.append(f"Hashes: {kinds}")
    if tally.without_password:
        lines.append(f"No password, reset at first sign-in: {tally.without_password:,}")
    if tally.refused:
        lines.append(f"Refused: {tally.refused.total():,}")
        lines.extend(
            f"  {reason} {many:,}: {REASONS.get(reason, '')}"
            for reason, many in tally.refused.most_common()
        )
    return lines
