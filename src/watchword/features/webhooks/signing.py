"""Signatures of what is sent.

Source: Standard Webhooks 1.0.0, symmetric signatures: `webhook-signature` holds, with blanks
between, `v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body` under each secret in force;
a secret is `whsec_` and the base64 of 24 to 64 random bytes.
"""

import hashlib
import hmac
import secrets
from base64 import b64decode, b64encode
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from watchword.kernel.secrets import Secret

PREFIX: Final = "whsec_"
_BYTES: Final = 32


def new_signing_secret() -> Secret:
    """A secret of an endpoint: 256 random bits."""
    return Secret(PREFIX + b64encode(secrets.token_bytes(_BYTES)).decode("ascii"))


def signed_headers(
    message_id: str, at: datetime, body: bytes, signing: Sequence[Secret]
) -> dict[str, str]:
    """The three headers.

    Args:
        message_id: the same at every try.
        at: of this try; whoever verifies refuses what is minutes old.
        body: to the byte as it is sent.
        signing: the secrets in force, the newest first.
    """
    stamp = str(int(at.timestamp()))
    content = b".".join((message_id.encode("ascii"), stamp.encode("ascii"), body))
    signatures = (
        hmac.digest(b64decode(each.reveal().removeprefix(PREFIX)), content, hashlib.sha256)
        for each in signing
    )
    return {
        "webhook-id": message_id,
        "webhook-timestamp": stamp,
        "webhook-signature": " ".join(f"v1,{b64encode(each).decode()}" for each in signatures),
    }
