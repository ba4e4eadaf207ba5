"""What is still owed: a sign-in that is half done. It is no session, nor taken for one."""

from datetime import datetime
from typing import Literal

from watchword.kernel.secrets import Digest
from watchword.storage.record import record

Purpose = Literal["sign_in", "reauthenticate"]


@record(
    name="challenge",
    key=("id",),
    unique=(("digest",),),
    indexes=(("user_id", "id"),),
    expires="expires_at",
)
class Challenge:
    """A chain that waits for its next step, bound to whoever began it."""

    realm: str
    id: str
    digest: Digest  # of what the client holds
    user_id: str
    epoch: int  # the user's when the first factor was asked for (I-01)
    purpose: Purpose
    session_id: str | None = None  # whose factor is proven again
    amr: tuple[str, ...]  # proven so far
    proven_at: datetime  # when the last of them was: to wait makes no session fresher
    transport: str
    remember: bool
    agent_digest: Digest
    device: Digest | None
    tries: int = 0
    created_at: datetime
    expires_at: datetime
