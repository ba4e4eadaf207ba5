"""What ends with what happens to passwords."""

from watchword.kernel.feature import Ends

ENDS = (
    Ends(
        name="password_changed",
        what="a user changes their password",
        sessions="others",
        refresh_tokens="others",
        api_keys="all",
        challenges="all",
    ),
    Ends(
        name="password_set",
        what="an operator sets a password",
        sessions="all",
        refresh_tokens="all",
        api_keys="all",
        challenges="all",
    ),
)
