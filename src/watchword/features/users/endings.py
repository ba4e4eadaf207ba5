"""What ends with what happens to users."""

from watchword.kernel.feature import Ends

ENDS = (
    Ends(
        name="user_disabled",
        what="an account is switched off",
        sessions="all",
        refresh_tokens="all",
        api_keys="all",
        challenges="all",
        note="Switched on again, it stays over: one signs in anew.",
    ),
    Ends(
        name="user_deleted",
        what="an account is deleted, by its owner or an operator",
        sessions="all",
        refresh_tokens="all",
        api_keys="all",
        challenges="all",
    ),
    Ends(
        name="role_removed",
        what="a role is taken away",
        sessions="none",
        refresh_tokens="none",
        note=(
            "Nothing ends: roles are read anew, and what asks for the role refuses within "
            "the same bound."
        ),
    ),
)
