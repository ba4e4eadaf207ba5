"""What ends with a reset."""

from watchword.kernel.feature import Ends

ENDS = (
    Ends(
        name="password_reset",
        what="a password is reset by mail",
        sessions="all",
        refresh_tokens="all",
        api_keys="all",
        challenges="all",
        note="A reset signs nobody in.",
    ),
)
