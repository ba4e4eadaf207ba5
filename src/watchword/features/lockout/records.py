"""What is kept of failures: keyed hashes, numbers and times."""

from datetime import datetime
from typing import Literal

from watchword.storage.record import record

Kind = Literal["pair", "device", "account", "address", "told"]
"""An account from an address; from a known device; from wherever. An address at whatever
accounts. And that its owner was told lately."""


@record(
    name="lockout",
    key=("id",),
    indexes=(("account", "id"), ("address", "id")),
    expires="expires_at",
)
class Failures:
    """Failures in a row. None of its hashes can be read back, or made without the secret."""

    realm: str
    id: str
    kind: Kind
    account: str = ""  # of whatever address was tried, anybody's or not; empty: of all
    address: str = ""  # of the client, or of its network; empty: of all
    failures: int
    failed_at: datetime  # whoever waits waits from here: the last one, once it locks
    expires_at: datetime  # from then on it counts as none
