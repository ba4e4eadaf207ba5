"""What is sent of which event: a list of what may leave, so that nothing else does.

Named by class, so that this slice needs none of those whose events it sends. No secret, token,
address of a person, user agent or network address is in it; an e-mail address only where an
endpoint asked for it. What strangers cause without end (refused requests) is not in it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from watchword.kernel.events import Event


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of message."""

    name: str
    fields: tuple[str, ...]


_SESSION = ("session_id", "user_id")
_ROLES = ("roles", "old_roles", "new_roles")

KINDS: Final[Mapping[str, Kind]] = {
    "UserRegistered": Kind("user.created", ("user_id", "by_themselves")),
    "UserChanged": Kind("user.updated", ("user_id",)),
    "UserEnded": Kind("user.access_ended", ("user_id", "why")),
    "UserDisabled": Kind("user.disabled", ("user_id",)),
    "UserEnabled": Kind("user.enabled", ("user_id",)),
    "UserDeleted": Kind("user.deleted", ("user_id",)),
    "AddressProven": Kind("user.email_verified", ("user_id",)),
    "EmailChanged": Kind("user.email_changed", ("user_id",)),
    "EmailChangeUndone": Kind("user.email_change_undone", ("user_id",)),
    "PasswordChanged": Kind("user.password_changed", ("user_id", "why")),
    "SessionsEnded": Kind("user.sessions_ended", ("user_id", "why", "by", "kept")),
    "RoleGranted": Kind("user.role_granted", ("user_id", *_ROLES)),
    "RoleRevoked": Kind("user.role_revoked", ("user_id", *_ROLES)),
    "EmailChangeRequested": Kind("user.email_change_requested", ("user_id",)),
    "PasswordDistrusted": Kind("user.password_distrusted", ("user_id", "why")),
    "AccountLocked": Kind("user.locked", ("user_id", "what", "failures", "until")),
    "AccountUnlocked": Kind("user.unlocked", ("user_id", "why", "by")),
    "SessionStarted": Kind("session.started", (*_SESSION, "amr", "transport")),
    "SessionEnded": Kind("session.ended", (*_SESSION, "why", "by")),
    "SessionRenewed": Kind("session.renewed", _SESSION),
    "RefreshTokenReplayed": Kind("session.refresh_token_reused", _SESSION),
    "DeviceAdded": Kind("session.device_added", (*_SESSION, "browser", "system")),
    "DeviceNamed": Kind("session.device_named", _SESSION),
    "FingerprintChanged": Kind("session.fingerprint_changed", _SESSION),
    "SignInFailed": Kind("sign_in.failed", ("user_id", "reason")),
    "SignInOwed": Kind("sign_in.owed", ("user_id", "purpose", "owed")),
    "SuspiciousActivity": Kind("sign_in.suspicious", ("user_id", "what", "failures")),
    "ApiKeyCreated": Kind("api_key.created", ("key_id", "user_id", "name", "scopes")),
    "ApiKeyRotated": Kind("api_key.rotated", ("key_id", "user_id", "successor_id")),
    "ApiKeyEnded": Kind("api_key.ended", ("key_id", "user_id", "why")),
    "ServiceGranted": Kind("service.granted", ("grant_id", "name", "audiences", "scopes")),
    "ServiceEnded": Kind("service.ended", ("grant_id", "name")),
    "KeyPublished": Kind("key.published", ("kid",)),
    "KeyRotated": Kind("key.rotated", ("kid", "former")),
    "KeyRetired": Kind("key.retired", ("kid",)),
    "KeyRevoked": Kind("key.revoked", ("kid",)),
    "MailUndeliverable": Kind("mail.undeliverable", ("outbox_id", "purpose", "attempts", "reason")),
}

TEST: Final = "webhook.test"
NAMES: Final = frozenset(kind.name for kind in KINDS.values())

_PATTERN: Final = re.compile(r"\*|[a-z_]+\.(\*|[a-z_]+)")


def kind_of(event: Event) -> Kind | None:
    """What is sent of it; None: nothing. A class of somebody else's is none of ours."""
    kind = type(event)
    return KINDS.get(kind.__name__) if kind.__module__.startswith("watchword.") else None


def data_of(event: Event, kind: Kind, *, with_email: bool) -> dict[str, object]:
    """The fields that may leave."""
    data: dict[str, object] = {name: getattr(event, name) for name in kind.fields}
    if with_email and kind.name.startswith("user."):
        email = getattr(event, "email", None)
        if isinstance(email, str):
            data["email"] = email
    return data


def is_wanted(patterns: Sequence[str], name: str) -> bool:
    """Does one of the patterns match? `*` is all, `user.*` all of users."""
    lead = name.partition(".")[0]
    return any(each in {"*", name, f"{lead}.*"} for each in patterns)


def is_pattern(pattern: str) -> bool:
    """Does it match anything that there is?"""
    if not _PATTERN.fullmatch(pattern):
        return False
    return any(is_wanted((pattern,), name) for name in NAMES)
