"""What ends with what happens to signing keys."""

from watchword.kernel.feature import Ends

ENDS = (
    Ends(
        name="key_rotated",
        what="another key signs, or one is retired",
        sessions="none",
        refresh_tokens="none",
        note="Nothing ends: the former key verifies as long as what it signed may live.",
    ),
    Ends(
        name="key_revoked",
        what="a signing key is revoked (`--compromised`)",
        sessions="none",
        refresh_tokens="none",
        access_tokens="all",
        services="all",
        note=(
            "Everybody's. Sessions live: cookies count, and a refresh brings a token under "
            "the new key."
        ),
    ),
)
