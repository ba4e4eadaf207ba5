"""A verification that is owed: the digest of the token that was mailed last."""

from datetime import datetime

from watchword.kernel.secrets import Digest
from watchword.storage.record import record


@record(name="email_verification", key=("user_id",), unique=(("digest",),), expires="expires_at")
class EmailVerification:
    """One a user: a new token voids the one before."""

    realm: str
    user_id: str
    digest: Digest
    email_key: str  # the address that it proves, and no other
    epoch: int  # the user's when it was minted (I-01)
    expires_at: datetime
