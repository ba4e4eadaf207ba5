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
    Ends(
        name="password_replaced",
        what="a sign-in sets the other password that it owed",
        sessions="all",
        refresh_tokens="all",
        api_keys="all",
        challenges="all",
        note="The sign-in that set it goes on.",
    ),
    Ends(
        name="password_distrusted",
        what="an operator asks a user for another password",
        sessions="all",
        refresh_tokens="all",
        api_keys="all",
        challenges="all",
        note="The next sign-in owes it.",
    ),
)
