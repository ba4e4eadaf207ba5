"""How columns of others' tables hold our kinds."""

from datetime import UTC, datetime
from typing import Any, Final, Literal
from uuid import UUID

from sqlalchemy import BigInteger, Text, Uuid
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.types import TypeEngine

Form = Literal["own", "blank", "integer", "uuid", "hex", "flag", "naive", "iso"]
"""As our own columns do, or otherwise.

`blank`: a text that may be nothing, in a column that may not: nothing is the empty text ·
`integer`, `uuid`, `hex`: our text is a number, a UUID, a UUID of 32 digits · `flag`: a truth
is 1, anything else is none · `naive`: an instant is a UTC time without its zone · `iso`: an
instant is a text of SQLite's.
"""

TYPES: Final[dict[Form, TypeEngine[Any]]] = {
    "blank": Text(),
    "integer": BigInteger(),
    "uuid": Uuid(),
    "hex": Text(),
    "flag": BigInteger(),
    "naive": TIMESTAMP(timezone=False),
    "iso": Text(),
}


def formed(form: Form, value: Any) -> Any:
    """What the column holds for a field's value; None for an id that it cannot hold."""
    match form:
        case "blank":
            return value or ""
        case "integer":
            return _number(value)
        case "uuid":
            return _uuid(value)
        case "hex":
            found = _uuid(value)
            return value if found is None else found.hex
        case "flag":
            return int(value)
        case "naive":
            return value.astimezone(UTC).replace(tzinfo=None)
        case "iso":
            plain = value.astimezone(UTC).replace(tzinfo=None)
            return plain.isoformat(" ", "microseconds")  # as SQLAlchemy writes it
        case "own":
            return value


def unformed(form: Form, value: Any) -> Any:
    """The field's value for what the column holds; None for what it cannot mean."""
    match form:
        case "blank":
            return value or None
        case "integer" | "uuid":
            return str(value)
        case "hex":
            try:
                found = UUID(value)
            except ValueError:
                return value
            return str(found) if found.hex == value else value
        case "flag":
            return value == 1
        case "naive":
            return value.replace(tzinfo=UTC)
        case "iso":
            try:
                read = datetime.fromisoformat(value)
            except (TypeError, ValueError):
                return None
            return read.replace(tzinfo=UTC) if read.tzinfo is None else read.astimezone(UTC)
        case "own":
            return value


def _number(text: str) -> int | None:
    """Canonical numbers only: no id has two spellings."""
    if len(text) > 20 or not (text.isascii() and text.removeprefix("-").isdigit()):
        return None
    found = int(text)
    return found if str(found) == text and -(2**63) <= found < 2**63 else None


def _uuid(text: str) -> UUID | None:
    try:
        found = UUID(text)
    except ValueError:
        return None
    return found if str(found) == text else None
