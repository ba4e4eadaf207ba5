"""What ends when, as the features declare it."""

from typing import Any

from watchword.cli.reference.tables import MADE, table
from watchword.kernel.feature import Ends
from watchword.kernel.settings import CoreSettings, format_duration
from watchword.presets import CATALOGUE

_COLUMNS = (
    *("sessions and cookies", "access tokens", "refresh tokens", "API keys"),
    *("half-done sign-ins", "service tokens"),
)
_CACHES = "30s on SQLite and PostgreSQL, 2s on others"


def endings_page() -> str:
    """The page."""
    bound: Any = CoreSettings.model_fields["feed_bound"].default
    rows = [_row(ending) for make in CATALOGUE for ending in make().ends]
    lines = [
        "# What ends when",
        "",
        MADE,
        "`tests/attacks/test_endings.py` does each of these and looks at every column, here and",
        "at another worker.",
        "",
        "Cookies and access tokens point at a session and end with it. Where it happens, what ends",
        "is refused at once; at every other worker within `feed_bound`, milliseconds as a rule,",
        "where state and change commit together (SQLite, PostgreSQL), else within `cache_max_age`",
        f"(`feed_bound` is `{format_duration(bound)}` unless set; `cache_max_age` {_CACHES}).",
        "Refresh tokens, half-done sign-ins and links in mail are looked up at each use: they end",
        'at once, everywhere. With `token_check="stateless"` guards that read no row believe an',
        "access token until it expires (`access_ttl`); all others ask.",
        "",
        "*all*: everything of the user's. *others*: everything but the session it was done in.",
        "*this*: that one alone. *oldest*: those past the limit. –: nothing.",
        "",
        *table(("what happens", *_COLUMNS, "note"), rows),
        "",
    ]
    return "\n".join(lines)


def _row(row: Ends) -> tuple[str, ...]:
    access = row.sessions if row.access_tokens is None else row.access_tokens
    columns = (row.sessions, access, row.refresh_tokens, row.api_keys, row.challenges, row.services)
    return (row.what, *("–" if each == "none" else each for each in columns), row.note)
