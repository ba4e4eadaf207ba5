"""What is kept of a password: a hash, never the password."""

from datetime import datetime

from watchword.storage.record import record


@record(name="password", key=("user_id",))
class Password:
    """The one password of a user."""

    realm: str
    user_id: str
    hash: str  # a PHC string, or bcrypt's own form
    set_at: datetime
    change_owed: str = ""  # why another must be set: common, compromised, operator
