"""What ends with what happens to tokens."""

from watchword.kernel.feature import Ends

ENDS = (
    Ends(
        name="refresh_token_reused",
        what="a refresh token comes that was used before",
        sessions="this",
        refresh_tokens="this",
        note="Thief and owner are both out. Not within `refresh_grace`, from the same device.",
    ),
    Ends(
        name="token_revoked",
        what="the application revokes an access or refresh token",
        sessions="this",
        refresh_tokens="this",
    ),
)
