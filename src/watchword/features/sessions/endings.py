"""What ends sessions."""

from watchword.kernel.feature import Ends

ENDS = (
    Ends(
        name="logout",
        what="a user signs out",
        sessions="this",
        refresh_tokens="this",
    ),
    Ends(
        name="logout_all",
        what="a user signs out everywhere",
        sessions="all",
        refresh_tokens="all",
        api_keys="all",
        challenges="all",
    ),
    Ends(
        name="logout_others",
        what="a user signs out everywhere else",
        sessions="others",
        refresh_tokens="others",
        api_keys="all",
        challenges="all",
    ),
    Ends(
        name="session_ended",
        what="a user ends one session from the list",
        sessions="this",
        refresh_tokens="this",
    ),
    Ends(
        name="session_ended_by_admin",
        what="an administrator or operator ends one session",
        sessions="this",
        refresh_tokens="this",
    ),
    Ends(
        name="sessions_ended_by_admin",
        what="an administrator or operator ends all of a user's sessions",
        sessions="all",
        refresh_tokens="all",
        api_keys="all",
        challenges="all",
    ),
    Ends(
        name="sessions_ended_since",
        what="an operator ends all that lived since an instant",
        sessions="all",
        refresh_tokens="all",
        api_keys="all",
        challenges="all",
        note="Of every user who had a session that was alive then.",
    ),
    Ends(
        name="too_many_sessions",
        what="more sign-ins than `max_sessions`",
        sessions="oldest",
        refresh_tokens="oldest",
    ),
    Ends(
        name="signed_in_again",
        what="a browser that has a session signs in again",
        sessions="this",
        refresh_tokens="this",
        note="Only the session that this browser had.",
    ),
)
