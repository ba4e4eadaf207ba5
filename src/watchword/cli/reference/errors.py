"""Every refusal: code, status, title; and what a 422 says of a field."""

from watchword.cli.reference.sources import calls, explained, literal, modules
from watchword.cli.reference.tables import MADE, table
from watchword.http.problems import FIELD_CODES
from watchword.kernel.errors import WatchwordError

_HEAD = f"""# Refusals

{MADE}

Each comes as `application/problem+json` (RFC 9457) with `type` =
`urn:watchword:error:<code>`. Match on `code`; the texts may change.
"""

_FIELDS = """## What is wrong with a field

`validation_failed` lists every fault in `errors`: `{field, code, detail}`. These are ours; any
other is pydantic's own name for it (`string_too_long`, `int_parsing`, …).
"""


def errors_page() -> str:
    """The page."""
    kinds = sorted(error_kinds().values(), key=lambda kind: (kind.status, kind.code))
    lines = [
        _HEAD,
        *table(
            ("status", "code", "title"),
            ((str(kind.status), f"`{kind.code}`", kind.title) for kind in kinds),
        ),
        "",
        _FIELDS,
        *(f"- `{code}`" for code in sorted(fault_codes())),
        "",
    ]
    return "\n".join(lines)


def error_kinds() -> dict[str, type[WatchwordError]]:
    """Every refusal of ours by its code; of several that share one, the most general."""
    ours = [
        kind
        for module in modules()
        for kind in vars(module).values()
        if isinstance(kind, type)
        and issubclass(kind, WatchwordError)
        and kind.__module__ == module.__name__
    ]
    ours.sort(key=lambda kind: (len(kind.__mro__), kind.__qualname__), reverse=True)
    return {kind.code: kind for kind in ours}


def fault_codes() -> set[str]:
    """The codes that our own checks give faults of fields."""
    found = {literal(called.call, 1, "code") for called in calls().get("Fault", ())}
    found |= {literal(called.call, 0, "code") for called in calls().get("FieldError", ())}
    return {code for code in found if code is not None} | explained() | set(FIELD_CODES.values())
