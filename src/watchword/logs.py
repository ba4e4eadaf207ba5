"""Logs: one line a record, with the request's id, and no secret in it.

    import watchword.logs
    watchword.logs.configure(format="json")

All our loggers are below `watchword`; `logging.getLogger("watchword").setLevel("DEBUG")` says
more. `watchword serve`, `dev` and `worker` call this by themselves (`log_format`, `log_level`).
"""

import json
import logging
import math
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal, TextIO

from watchword.kernel.occasion import occasion

Format = Literal["text", "json"]

LONGEST: Final = 16 * 1024  # letters of one text in a record
_HIDDEN: Final = "***"

SECRET: Final = re.compile(
    r"\bww[a-z]_[A-Za-z0-9_-]{22,}|\bwhsec_[A-Za-z0-9+/=_-]{16,}|\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,}"
)
"""What a secret of ours looks like. Nothing that is written anywhere may match it."""

# Where a word begins, in an address too that stands written out in another (`%3Dwwr_…`).
_BEGIN: Final = r"(?:(?<![A-Za-z0-9])|(?<=%[0-9A-Fa-f]{2}))"
# A last line of defence: no code of ours logs any of this. All linear, whatever the text.
_TOKENS: Final = (
    re.compile(rf"{_BEGIN}(ww[a-z]_)[A-Za-z0-9_-]{{16,}}"),
    re.compile(rf"{_BEGIN}(whsec_)[A-Za-z0-9+/=_-]{{16,}}"),
    re.compile(rf"{_BEGIN}(eyJ)[A-Za-z0-9_-]{{8,}}(?:\.[A-Za-z0-9_-]*)+"),
    re.compile(r"(?i)\b((?:bearer|basic|dpop)\s+)[A-Za-z0-9._~+/=-]{8,}"),
    re.compile(
        r"(?i)\b((?:proxy-)?authorization(?:['\"]\s*[:,]|\s*[:=])\s*(?-i:b)?['\"]?)[^\s'\"][^\r\n'\"]*"
    ),
    re.compile(
        r"(?i)\b((?:set-)?cookie(?:['\"]\s*[:,]|\s*[:=])\s*(?-i:b)?['\"]?)[^\s'\"][^\r\n'\"]*"
    ),
    re.compile(r"(?i)(://[^\s/:@]{0,256}:)[^\s/]{1,256}(?=@)"),
)
_NAMES: Final = (
    r"\w{0,32}(?:password|passwd|pwd|secret|token|api[_-]?key|credential|otp|backup[_-]?code)"
)
_NAMED: Final = re.compile(
    # After a name: `=`; a colon before what is quoted; after a name in quotes before a number too.
    rf"(?i)(?<!\w)({_NAMES}(?:['\"]?\s{{0,3}}=\s{{0,3}}|['\"]?\s*:\s*(?=b?['\"])|['\"]\s*:\s*(?=\d)))"
    r"(?:b?\"(?:[^\"\\]|\\.)*\"?|b?'(?:[^'\\]|\\.)*'?|[^\s&'\",;)}\]]+)",
    re.DOTALL,
)
_SECRET_NAME: Final = re.compile(rf"(?i){_NAMES}|(?:proxy-)?authorization|(?:set-)?cookie")

_OWN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


def redacted(text: str) -> str:
    """The text with whatever looks like a token, a password or a header that holds one hidden."""
    for form in _TOKENS:
        text = form.sub(rf"\g<1>{_HIDDEN}", text)
    return _NAMED.sub(rf"\g<1>{_HIDDEN}", text)


def one_line(text: str) -> str:
    """The text with line breaks and what steers terminals written out as escapes.

    Source: ASVS 16.4.1. Letters of all scripts stay; marks of direction and half pairs do not.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(each if each.isprintable() else _written(each) for each in text)


def _written(letter: str) -> str:
    return letter.encode("unicode_escape", "backslashreplace").decode("ascii")


class Redaction(logging.Filter):
    """For handlers of your own: hides secrets in whatever passes."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let it pass, changed for every handler that comes after."""
        record.msg, record.args = redacted(_message(record)), None
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = redacted(record.exc_text)
            record.exc_info = None  # a formatter that is not `logging`'s would write it out anew
        for name in vars(record).keys() - _OWN:
            setattr(record, name, _extra(name, getattr(record, name)))
        return True


class _Formatter(logging.Formatter):
    def parts(self, record: logging.LogRecord) -> dict[str, Any]:
        """What is said of every record, fit to be seen."""
        at = datetime.fromtimestamp(record.created, UTC)
        said: dict[str, Any] = {
            "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": redacted(_message(record)[:LONGEST]),
        }
        said.update(_where())
        extra = {
            name: _extra(name, value) for name, value in vars(record).items() if name not in _OWN
        }
        if extra:
            said["extra"] = extra
        trace = [redacted(each) for each in self._traces(record)]
        if trace:
            said["exception"] = "\n".join(trace)[-LONGEST:]
        return said

    def _traces(self, record: logging.LogRecord) -> list[str]:
        found: list[str] = []
        if record.exc_text:
            found.append(record.exc_text)
        elif record.exc_info:
            found.append(self.formatException(record.exc_info))
        if record.stack_info:
            found.append(self.formatStack(record.stack_info))
        return found


class JsonLines(_Formatter):
    """One JSON object a record, in ASCII."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        return json.dumps(self.parts(record), separators=(",", ":"), default=repr)


class TextLines(_Formatter):
    """One line a record, for people.

    The lines of a traceback are indented behind a bar: nothing in them can pass for a record.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        parts = self.parts(record)
        line = f"{parts['time']} {parts['level']:<7} {parts['logger']}: {parts['message']}"
        request_id = parts.get("request_id")
        if request_id is not None and request_id not in line:
            line += f" request={request_id}"
        for name, value in parts.get("extra", {}).items():
            line += f" {name}={value}"
        lines = [one_line(line)]
        trace: str = parts.get("exception", "")
        lines += (f"    | {one_line(each)}" for each in trace.split("\n") if trace)
        return "\n".join(lines)


FORMATTERS: Final[Mapping[Format, type[logging.Formatter]]] = {"text": TextLines, "json": JsonLines}


def configure(
    *,
    format: Format = "text",  # noqa: A002  as logging calls it
    level: str | int = "INFO",
    stream: TextIO | None = None,
) -> None:
    """Have all that we log written, one line a record; called again it replaces what it set up.

    It concerns the logger `watchword` and those below it, no other.

    Args:
        format: `json` for machines.
        level: DEBUG, INFO, WARNING, ERROR.
        stream: instead of stderr.

    Raises:
        ValueError: no such format or level.
    """
    if format not in FORMATTERS:
        raise ValueError(f"{format!r} is not one of {', '.join(FORMATTERS)}")
    handler = _Handler(stream if stream is not None else sys.stderr)
    handler.setFormatter(FORMATTERS[format]())
    log = logging.getLogger("watchword")
    log.setLevel(level.upper() if isinstance(level, str) else level)
    for former in [each for each in log.handlers if isinstance(each, _Handler)]:
        log.removeHandler(former)
    log.addHandler(handler)
    log.propagate = False


class _Handler(logging.StreamHandler[TextIO]):
    """Ours, so that the next call finds it."""


def for_servers(format: Format = "text", level: str = "info") -> dict[str, Any]:  # noqa: A002
    """What `logging.config.dictConfig` needs in a process that runs uvicorn.

    The access log goes to stdout, all else to stderr. The level is that of our own loggers.
    """
    kind = FORMATTERS[format]
    plain = {"formatter": "ours", "class": "logging.StreamHandler"}
    ours: dict[str, Any] = {"handlers": ["default"], "level": "INFO", "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"ours": {"()": f"{kind.__module__}.{kind.__qualname__}"}},
        "handlers": {
            "default": {**plain, "stream": "ext://sys.stderr"},
            "access": {**plain, "stream": "ext://sys.stdout"},
        },
        "loggers": {
            "uvicorn": ours,
            "uvicorn.error": {"level": "INFO"},
            "uvicorn.access": {**ours, "handlers": ["access"]},
            "watchword": {**ours, "level": level.upper()},
        },
    }


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001  a log line that is wrong must not take a request down
        text = record.msg if isinstance(record.msg, str) else type(record.msg).__name__
        return f"{text!r} with other arguments"


def _where() -> dict[str, str]:
    try:
        now = occasion()
    except Exception:  # noqa: BLE001  as above
        return {}
    return {} if now is None else {"request_id": now.request_id, "app": now.app}


def _extra(name: str, value: object) -> object:
    if _SECRET_NAME.fullmatch(name):
        return _HIDDEN
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)  # JSON has no NaN
    try:
        text = str(value)
    except Exception:  # noqa: BLE001  `logging` would write out what was not redacted
        return f"{type(value).__name__} without words"
    return redacted(text[:LONGEST])
