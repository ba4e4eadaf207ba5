"""What ends when an address is proven."""

from watchword.kernel.feature import Ends

ENDS = (
    Ends(
        name="address_proven",
        what="a stranger to an unproven account proves its address",
        sessions="all",
        refresh_tokens="all",
        api_keys="all",
        challenges="all",
        note=(
            "Ways in that were set before go too. Whoever brings the account's session or "
            "password ends nothing."
        ),
    ),
)
