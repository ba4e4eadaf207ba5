"""What went wrong, in our words: taken, impossible, or away. Never a server's text or values."""

import re
from typing import Any, Final

from bson.errors import BSONError
from pymongo import errors

from watchword.kernel.errors import StoreUnavailable
from watchword.storage.errors import Conflict
from watchword.storage.record import Schema
from watchword.stores.mongo.documents import conflicts

DUPLICATE: Final = 11000
# BadValue, FailedToParse, TypeMismatch, Overflow, DocumentValidationFailure, and what is too large.
_IMPOSSIBLE: Final = (2, 9, 14, 15, 121, 10334, 17280, 17419, 17420)
# The first match is the index's name: the text's values come after it.
_INDEX: Final = re.compile(r"index: (\S+) dup key")


def translated(error: BaseException, schema: Schema | None = None) -> Exception | None:
    """What to raise instead of a client's error; None if it is a mistake of ours."""
    if isinstance(error, errors.OperationFailure):
        if error.code == DUPLICATE and schema is not None:
            return Conflict(conflicts(schema).get(taken_index(error), schema.key[-1]))
        if error.code in _IMPOSSIBLE:
            return ValueError("a value that the database cannot hold")
        return StoreUnavailable(f"{type(error).__name__} {error.code or ''}".strip())
    if isinstance(error, errors.DocumentTooLarge | BSONError | OverflowError | ValueError):
        return ValueError("a value that the database cannot hold")
    if isinstance(error, errors.PyMongoError | OSError | EOFError | TimeoutError):
        return StoreUnavailable(type(error).__name__)
    return None


def taken_index(error: errors.OperationFailure) -> str:
    """The unique index that refused a write."""
    details: Any = error.details or {}
    pattern: Any = details.get("keyPattern")
    if isinstance(pattern, dict) and pattern:
        field = str(next(iter(pattern)))  # pyright: ignore[reportUnknownArgumentType]
        return "_id_" if field == "_id" else "uq_" + field.removeprefix("unique:")
    named = _INDEX.search(str(details.get("errmsg", "")))
    return named[1] if named else "_id_"
