"""What ends with another address."""

from watchword.kernel.feature import Ends

ENDS = (
    Ends(
        name="email_changed",
        what="a change of address is confirmed",
        sessions="others",
        refresh_tokens="others",
        api_keys="all",
        challenges="all",
        note="Kept is the session that asked for it.",
    ),
    Ends(
        name="email_undone",
        what="a change of address is undone from the old address",
        sessions="all",
        refresh_tokens="all",
        api_keys="all",
        challenges="all",
        note="Ways in go too: the next one is a reset.",
    ),
)
