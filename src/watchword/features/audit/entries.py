"""From an event to an entry: what is kept of it, in which form, and how much at most."""

import hmac
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Final, cast

from watchword.crypto.keys import RootSecrets
from watchword.features.audit.records import AuditEntry
from watchword.kernel.events import Event, RequestRefused, snake_case
from watchword.kernel.ids import new_id
from watchword.kernel.occasion import Occasion, occasion
from watchword.kernel.secrets import Digest, Secret, unpadded
from watchword.storage.record import to_json

HASHED: Final = "hmac:"

_TEXT: Final = 256  # letters of one value
_MANY: Final = 20  # values of a list
_DETAILS: Final = 2048  # bytes of all of them


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """Makes the entries of one realm."""

    realm: str
    secrets: RootSecrets
    retention: timedelta
    ip_mode: str

    def entry_of(self, event: Event, *, repeated: int = 0) -> AuditEntry | None:
        """What is kept of an event; None: nothing.

        Args:
            event: of any feature, ours or not.
            repeated: how many like it were not kept since the last one.
        """
        action = event.audited_as()
        if action is None:
            return None
        now = occasion()
        client = None if now is None else now.client
        principal = None if now is None else now.principal
        account = _text_of(event, "account")
        if account is not None and "@" not in account:
            account = None  # a hash of somebody else's
        details = _details_of(event, now)
        if repeated:
            details["repeated"] = repeated
        user_id = _text_of(event, "user_id")
        if user_id is None and isinstance(event, RequestRefused) and principal is not None:
            user_id = principal.id if principal.kind == "user" else None
        salt = unpadded(secrets.token_bytes(16))
        address = None if client is None else self.kept(client.address)
        agent = None if client is None else printable(client.user_agent, 256) or None
        hashed = None if account is None else self.hashed("account", account)
        return AuditEntry(
            realm=self.realm,
            id=new_id(event.at),
            at=event.at,
            action=printable(action, 64),
            event=printable(snake_case(type(event).__name__), 64),
            result="failure" if event.is_failure else "success",
            user_id=user_id,
            actor=_actor(now),
            session_id=_text_of(event, "session_id")
            or (None if principal is None else principal.session_id),
            request_id=None if now is None else printable(now.request_id, 64),
            app=None if now is None else printable(now.app, 64),
            details=details,
            account=hashed,
            address=address,
            user_agent=agent,
            salt=salt,
            personal=personal_digest(salt, hashed, address, agent),
            expires_at=event.at + self.retention,
        )

    def kept(self, address: str | None) -> str | None:
        """An address as the settings want it kept."""
        if address is None or self.ip_mode == "off":
            return None
        return (
            printable(address, 64) if self.ip_mode == "plain" else self.hashed("address", address)
        )

    def hashed(self, kind: str, text: str, key_id: str | None = None) -> str:
        """A keyed hash: there are few enough addresses to try them all without a key."""
        key = self.secrets.subkey("audit", key_id=key_id)
        message = f"{self.realm}\x00{kind}\x00{text}".encode("utf-8", "backslashreplace")
        return HASHED + unpadded(hmac.digest(key, message, sha256)[:16])

    def forms(self, kind: str, text: str) -> tuple[str, ...]:
        """Every form in which it may stand in entries: plain, and hashed under each secret."""
        hashed = (self.hashed(kind, text, key_id) for key_id in self.secrets.ids)
        return (text, *hashed) if kind == "address" else tuple(hashed)


def personal_digest(
    salt: str, account: str | None, address: str | None, user_agent: str | None
) -> str:
    """What stays of the personal fields when they are erased: proof of nothing without the salt."""
    return digest([salt, account, address, user_agent])


def digest(value: object) -> str:
    """SHA-256 over the one JSON form of a value."""
    return unpadded(sha256(to_json(value).encode()).digest())


def entry_digest(entry: AuditEntry) -> str:
    """What a seal keeps of an entry: all that may not change, and the personal part by digest."""
    return digest(
        [
            "watchword audit entry v1",
            entry.realm,
            entry.id,
            written_at(entry.at),
            entry.action,
            entry.event,
            entry.result,
            entry.user_id,
            entry.actor,
            entry.session_id,
            entry.request_id,
            entry.app,
            _plain(entry.details),
            entry.personal,
        ]
    )


def written_at(instant: datetime) -> str:
    """An instant as it enters digests: the same whatever store gave it back."""
    return instant.astimezone(UTC).isoformat(timespec="microseconds")


def view_of(entry: AuditEntry) -> dict[str, Any]:
    """An entry as JSON for people and programs: the same keys always, times in UTC."""
    return {
        "id": entry.id,
        "at": written_at(entry.at).replace("+00:00", "Z"),
        "realm": entry.realm,
        "action": entry.action,
        "event": entry.event,
        "result": entry.result,
        "user_id": entry.user_id,
        "actor": entry.actor,
        "session_id": entry.session_id,
        "request_id": entry.request_id,
        "app": entry.app,
        "account": entry.account,
        "address": entry.address,
        "user_agent": entry.user_agent,
        "details": _plain(entry.details),
        "seal": entry.seal or None,
    }


def printable(text: str, most: int) -> str:
    """One line of visible letters: what else a stranger sent is written out (16.4.1)."""
    cut = text[:most]
    if not cut.isprintable():
        cut = "".join(
            each
            if each.isprintable()
            else each.encode("unicode_escape", "backslashreplace").decode("ascii")
            for each in cut
        )
    return cut[:most]


def _text_of(event: Event, name: str) -> str | None:
    value = getattr(event, name, None)
    return printable(value, _TEXT) if isinstance(value, str) and value else None


def _actor(now: Occasion | None) -> str:
    if now is None:
        return "system"
    if now.kind == "command":
        return "command"
    if now.principal is None:
        return "anonymous"
    return printable(f"{now.principal.kind}:{now.principal.id}", _TEXT)


def _details_of(event: Event, now: Occasion | None) -> dict[str, Any]:
    details: dict[str, Any] = {}
    for name in event.audited:
        value = _detail(getattr(event, name, None))
        if value is not None:
            details[name] = value
    if isinstance(event, RequestRefused) and now is not None:
        details["method"] = printable(now.method, 16)
        details["path"] = printable(now.path, _TEXT)
    if now is not None and now.kind == "command":
        details["command"] = printable(now.path, 64)
    while len(to_json(details).encode()) > _DETAILS:
        longest = max(details, key=lambda name: len(to_json(details[name])))
        del details[longest]
    return details


def _detail(value: object) -> Any:
    """A value as it may stand in an entry; a type that hides something hides it here too."""
    match value:
        case Secret() | Digest():
            return None
        case bool() | int():
            return value if isinstance(value, bool) or abs(value) < 2**53 else None
        case str():
            return printable(value, _TEXT)
        case tuple() | list() | frozenset() | set():
            many = cast("Iterable[object]", value)
            texts = [printable(each, _TEXT) for each in many if isinstance(each, str)]
            return (sorted(texts) if isinstance(value, frozenset | set) else texts)[:_MANY]
        case _:
            return None


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        mapping = cast("Mapping[str, Any]", value)
        return {name: _plain(each) for name, each in mapping.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in cast("list[Any]", value)]
    return value
