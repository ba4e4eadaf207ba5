"""A reset that is open: the digest of the token that was mailed last."""

from datetime import datetime

from watchword.kernel.secrets import Digest
from watchword.storage.record import record


@record(name="password_reset", key=("user_id",), unique=(("digest",),), expires="expires_at")
class PasswordReset:
    """One a user: a new token voids the one before."""

    realm: str
    user_id: str
    digest: Digest
    email_key: str  # the address it was sent to; another address voids it
    epoch: int  # the user's when it was minted (I-01)
    expires_at: datetime
