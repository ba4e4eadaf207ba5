"""What ends API keys."""

from watchword.kernel.feature import Ends

ENDS = (
    Ends(
        name="api_key_ended",
        what="an API key is ended",
        sessions="none",
        refresh_tokens="none",
        api_keys="this",
    ),
)
