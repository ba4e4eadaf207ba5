"""Users as they leave: one JSON object each, or one line of CSV."""

import base64
import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, get_type_hints

from pydantic import TypeAdapter

from watchword.features.transfer.arrivals import own_columns
from watchword.features.users import User

COLUMNS: Final = (
    "id",
    "email",
    "username",
    "roles",
    "user_settings",
    "is_verified",
    "is_active",
    "created_at",
)
_FORMULA: Final = re.compile(r"'*[=+\-@\t\r\n]")


def departure(user: User, stored: str | None) -> dict[str, Any]:
    """A user as JSON: what can be brought in again."""
    fields: dict[str, Any] = {name: getattr(user, name) for name in COLUMNS}
    fields["created_at"] = _written(user.created_at)
    hints = get_type_hints(type(user), include_extras=True)
    for name, column in own_columns(type(user)).items():
        value = getattr(user, name)
        if isinstance(value, bytes):
            value = base64.b64encode(value).decode("ascii")
        elif column.kind in ("instant", "duration") and value is not None:
            value = TypeAdapter(hints[name]).dump_python(value, mode="json")
        fields[name] = value
    if stored is not None:
        fields["password_hash"] = stored
    return fields


def as_json(fields: Mapping[str, Any]) -> str:
    """One line of JSON."""
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")) + "\n"


def as_csv(fields: Mapping[str, Any], columns: Sequence[str]) -> str:
    """One line of CSV; no cell begins as a formula does.

    A quote in front of such a cell is taken away again when it is read here.
    """
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow([_cell(fields.get(name)) for name in columns])
    return line.getvalue()


def columns_of(kind: type[User], *, hashes: bool) -> tuple[str, ...]:
    """The head of a CSV file of these users."""
    return (*COLUMNS, *own_columns(kind), *(("password_hash",) if hashes else ()))


def _cell(value: object) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"'{text}" if _FORMULA.match(text) else text


def _written(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat()
