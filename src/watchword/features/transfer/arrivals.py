"""What a row of a source means: a user who could be brought in, or why not."""

import base64
import json
import re
import secrets
from binascii import Error as NotBase64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, cast, get_type_hints
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

from watchword.crypto.foreign import FirebaseScrypt, TooDear, read_base64
from watchword.crypto.hashing import kind_of
from watchword.features.transfer.rows import Row
from watchword.features.users import User, Username, Users
from watchword.kernel.address import Address, address_of
from watchword.kernel.errors import FieldError
from watchword.kernel.ids import new_id
from watchword.storage.record import Column, freeze, schema_of, to_json

Origin = Literal["csv", "jsonl", "firebase", "fastapi-users", "django", "myauth", "table"]

FIELDS: Final = (
    "id",
    "email",
    "password_hash",
    "username",
    "is_verified",
    "is_active",
    "created_at",
    "roles",
    "is_superuser",
    "user_settings",
)
"""What `--map` can fill, besides the own fields of your users."""

ADMIN: Final = "admin"

_PLAIN: Final = frozenset({"password", "passwd", "pwd", "password_plain", "plain_password"})
_TRUE: Final = frozenset({"true", "t", "yes", "y", "1"})
_FALSE: Final = frozenset({"false", "f", "no", "n", "0"})
_HEX_ID: Final = re.compile(r"[0-9a-fA-F]{32}")
_PLAIN_LOCAL: Final = re.compile(r"(?=.{1,64}$)[A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*")
_LONGEST_ADDRESS: Final = 250  # near the limit the whole address is looked at
_MOST_DOMAINS: Final = 10_000
_LONGEST_HASH: Final = 1024
_DEEPEST: Final = 32  # of user_settings, as over HTTP
_LONGEST: Final = timedelta(days=36500)

PRESETS: Final[Mapping[Origin, Mapping[str, str]]] = {
    "csv": {name: name for name in FIELDS},
    "jsonl": {name: name for name in FIELDS},
    "table": {},
    "fastapi-users": {
        "id": "id",
        "email": "email",
        "password_hash": "hashed_password",
        "is_active": "is_active",
        "is_superuser": "is_superuser",
        "is_verified": "is_verified",
    },
    "django": {
        "id": "id",
        "username": "username",
        "email": "email",
        "password_hash": "password",
        "is_active": "is_active",
        "is_superuser": "is_superuser",
        "created_at": "date_joined",
    },
    "myauth": {
        "id": "id",
        "email": "email",
        "username": "username",
        "password_hash": "hashed_password",
        "roles": "roles",
        "user_settings": "user_settings",
        "is_verified": "is_verified",
        "is_active": "is_active",
        "created_at": "created_at",
    },
    "firebase": {
        "id": "localId",
        "email": "email",
        "password_hash": "passwordHash",
        "username": "displayName",
        "is_verified": "emailVerified",
        "created_at": "createdAt",
    },
}
TABLES: Final[Mapping[Origin, str]] = {
    "fastapi-users": "user",
    "django": "auth_user",
    "myauth": "users",
}


class Refused(Exception):
    """A row that is not brought in, and why. Holds nothing of the row but a field's name."""

    def __init__(self, reason: str, field: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.field = field


@dataclass(frozen=True, slots=True, kw_only=True)
class FirebaseParameters:
    """How a Firebase project hashes, but for its signer key, which is a setting."""

    signer: str  # the short name of the key
    rounds: int = 8
    mem_cost: int = 14
    salt_separator: bytes = b"\x07"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A user who could be brought in."""

    line: int
    user: User
    has_id: bool  # of the source's own
    hash: str | None
    kind: str | None  # of the hash


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How rows are read."""

    origin: Origin
    columns: Mapping[str, str]  # our field: the source's column
    verified: Literal["trust", "none", "all"] = "trust"
    roles: bool = False
    firebase: FirebaseParameters | None = None


@dataclass(slots=True)
class Arrivals:
    """Reads rows as users of one kind."""

    users: Users[Any]
    reading: Reading
    own: Mapping[str, Column] = field(init=False)
    _adapters: dict[str, TypeAdapter[Any]] = field(init=False)
    _username: TypeAdapter[str] = field(init=False)
    _addresses: "_Addresses" = field(init=False)

    def __post_init__(self) -> None:
        kind = self.users.kind
        self.own = own_columns(kind)
        hints = get_type_hints(kind, include_extras=True)
        self._adapters = {
            name: TypeAdapter(hints[name]) for name in self.own if name in self.reading.columns
        }
        self._username = TypeAdapter(Username)
        self._addresses = _Addresses()

    def read(self, row: Row) -> Arrival:
        """What the row means.

        Raises:
            Refused
        """
        if row.fault is not None:
            raise Refused(row.fault)
        self._refuse_plain(row)
        get = self._given(row)
        email = get("email")
        if email is None:
            raise Refused("no_address")
        if not isinstance(email, str):
            raise Refused("bad_address")
        address = self._addresses.read(email.strip())
        stored, kind = self._hash(row, get("password_hash"))
        now = self.users.clock.now()
        given_id = get("id")
        fields: dict[str, Any] = {
            "realm": self.users.store.realm,
            "id": new_id(now) if given_id is None else self._id(given_id),
            "email": address.email,
            "email_key": address.key,
            "username": self._name(get("username")),
            "roles": self._roles(get) if self.reading.roles else (),
            "is_verified": self._verified(get),
            "is_active": self._active(row, get),
            "epoch": secrets.randbits(31),  # as for every new user
            "created_at": _instant("created_at", get("created_at")) or now,
            "updated_at": now,
        }
        settings = get("user_settings")
        if settings is not None:
            fields["user_settings"] = self._settings(settings)
        for name, adapter in self._adapters.items():
            value = get(name)
            if value is not None:
                fields[name] = _own(self.own[name], adapter, value)
        return Arrival(
            line=row.line,
            user=self.users.kind(**fields),
            has_id=given_id is not None,
            hash=stored,
            kind=kind,
        )

    def _given(self, row: Row) -> Callable[[str], object]:
        columns, values = self.reading.columns, row.values

        def get(name: str) -> object:
            value = values.get(columns[name]) if name in columns else None
            return None if value == "" else value

        return get

    def _refuse_plain(self, row: Row) -> None:
        """No plain password is ever read, whatever it is called."""
        if row.values.keys() & _PLAIN - set(self.reading.columns.values()):
            raise Refused("plain_password")

    def _hash(self, row: Row, value: object) -> tuple[str | None, str | None]:
        if value is None:
            return None, None
        if isinstance(value, bytes):
            value = value.decode("ascii", "replace")
        if not isinstance(value, str) or len(value) > _LONGEST_HASH:
            raise Refused("unknown_hash")
        if self.reading.origin == "django" and value.startswith("!"):
            return None, None  # `set_unusable_password`
        if self.reading.firebase is not None and not value.startswith("$"):
            value = self._firebase(row, value)
        try:
            kind = kind_of(value)
        except TooDear as error:
            raise Refused("hash_too_dear") from error
        if kind is None:
            raise Refused("unknown_hash")
        return value, kind

    def _firebase(self, row: Row, value: str) -> str:
        parameters, salt = self.reading.firebase, row.values.get("salt")
        parts = [read_base64(part) for part in (value, salt) if isinstance(part, str)]
        if parameters is None or len(parts) < 2 or parts[0] is None or parts[1] is None:
            raise Refused("unknown_hash")
        return str(
            FirebaseScrypt(
                signer=parameters.signer,
                memory=parameters.mem_cost,
                rounds=parameters.rounds,
                salt=parts[1],
                separator=parameters.salt_separator,
                result=parts[0],
            )
        )

    def _id(self, value: object) -> str:
        """Keep the source's id as a text (DEF-22)."""
        if isinstance(value, bool) or not isinstance(value, str | int | UUID):
            raise Refused("bad_id")
        if isinstance(value, int) and abs(value) >= 1 << 127:
            raise Refused("bad_id")
        text = str(value)
        if self.reading.origin == "fastapi-users" and _HEX_ID.fullmatch(text):
            text = str(UUID(text))  # as its tokens had it; SQLite holds it without the dashes
        if not 1 <= len(text) <= 255 or not text.isprintable() or text != text.strip():
            raise Refused("bad_id")
        return text

    def _name(self, value: object) -> str | None:
        if value is None:
            if self.users.settings.username_required:
                raise Refused("no_username")
            return None
        if isinstance(value, str) and len(value) <= 128 and value.isprintable():
            return value
        try:
            return _text(self._username.validate_python(value))
        except (ValidationError, ValueError) as error:
            raise Refused("bad_field", "username") from error

    def _verified(self, get: Callable[[str], object]) -> bool:
        if self.reading.verified != "trust":
            return self.reading.verified == "all"
        return _flag("is_verified", get("is_verified"), default=False)

    def _active(self, row: Row, get: Callable[[str], object]) -> bool:
        if self.reading.origin == "firebase":
            return not _flag("disabled", row.values.get("disabled"), default=False)
        return _flag("is_active", get("is_active"), default=True)

    def _roles(self, get: Callable[[str], object]) -> tuple[str, ...]:
        value = get("roles")
        if isinstance(value, str):
            value = _from_json("roles", value) if value[:1] == "[" else value.split(",")
        if not isinstance(value, list | tuple | None):
            raise Refused("bad_field", "roles")
        given = cast("list[object]", value or ())
        roles = [role.strip() if isinstance(role, str) else "" for role in given]
        if any(not role or len(role) > 128 or not role.isprintable() for role in roles):
            raise Refused("bad_field", "roles")
        if _flag("is_superuser", get("is_superuser"), default=False):
            roles.append(ADMIN)
        return tuple(dict.fromkeys(roles))

    def _settings(self, value: object) -> Any:
        if isinstance(value, str):
            value = _from_json("user_settings", value)
        if not isinstance(value, dict) or not _is_plain(cast("object", value)):
            raise Refused("bad_field", "user_settings")
        try:
            size = len(to_json(cast("object", value)).encode())
        except (TypeError, ValueError) as error:
            raise Refused("bad_field", "user_settings") from error
        if size > self.users.settings.settings_limit:
            raise Refused("bad_field", "user_settings")
        return freeze(cast("object", value))


class _Addresses:
    """`address_of`, whose work on a domain is done once a domain, not once a user."""

    def __init__(self) -> None:
        self._domains: dict[str, Address] = {}

    def read(self, text: str) -> Address:
        """Read exactly one address. Raises Refused."""
        local, _, domain = text.rpartition("@")
        try:
            if len(text) > _LONGEST_ADDRESS or not _PLAIN_LOCAL.fullmatch(local):
                return address_of(text)
            known = self._domains.get(domain)
            if known is None:
                known = address_of(f"a@{domain}")
                if len(self._domains) < _MOST_DOMAINS:
                    self._domains[domain] = known
        except (FieldError, UnicodeError) as error:
            raise Refused("bad_address") from error
        # A plain local part stays as it is, and its key is that in lower case.
        return Address(local + known.email[1:], local.lower() + known.key[1:])


def own_columns(kind: type[User]) -> Mapping[str, Column]:
    """The fields that an application's own class adds to `User`."""
    known = schema_of(User).columns
    return {name: each for name, each in schema_of(kind).columns.items() if name not in known}


def looks_plain(column: str) -> bool:
    """Does this column's name say that passwords stand there as they are?"""
    return column in _PLAIN


def _text(value: str) -> str:
    value.encode()  # half a surrogate pair is no text: UnicodeEncodeError is a ValueError
    if "\x00" in value:
        raise ValueError("NUL")
    return value


def _flag(name: str, value: object, *, default: bool) -> bool:
    if value is None:
        return default
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower() if isinstance(value, str | int) else ""
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    raise Refused("bad_field", name)


def _instant(name: str, value: object) -> datetime | None:
    """A time: ISO 8601 (UTC where nothing else is said), or milliseconds since 1970."""
    if value is None:
        return None
    try:
        if isinstance(value, str) and not value.isdecimal():
            value = datetime.fromisoformat(value.strip())
        elif isinstance(value, str | int) and not isinstance(value, bool):
            value = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=int(value))
        if not isinstance(value, datetime):
            raise ValueError("no time")
        found = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise Refused("bad_field", name) from error
    if not 1970 <= found.year <= 9000:
        raise Refused("bad_field", name)
    return found


def _from_json(name: str, text: str) -> object:
    try:
        return cast("object", json.loads(text))
    except (ValueError, RecursionError) as error:
        raise Refused("bad_field", name) from error


def _is_plain(value: object, deep: int = 0) -> bool:
    """JSON that is not too deep, of texts that can be stored."""
    if deep > _DEEPEST:
        return False
    if isinstance(value, str):
        return "\x00" not in value and (value.isascii() or not _is_half(value))
    if isinstance(value, Mapping):
        pairs = cast("Mapping[object, object]", value).items()
        return all(_is_plain(name, deep + 1) and _is_plain(item, deep + 1) for name, item in pairs)
    if isinstance(value, list | tuple):
        return all(_is_plain(item, deep + 1) for item in cast("list[object]", value))
    return True


def _is_half(text: str) -> bool:
    return any("\ud800" <= letter <= "\udfff" for letter in text)


def _own(column: Column, adapter: TypeAdapter[Any], value: object) -> Any:
    """A value of an own field, within what databases hold."""
    name = column.name
    try:
        if column.kind == "json" and isinstance(value, str):
            value = _from_json(name, value)
        elif column.kind == "bytes" and isinstance(value, str):
            value = base64.b64decode(value, validate=True)
        found = adapter.validate_python(value)
        match column.kind:
            case "text" if found is not None:
                _text(str(found))
            case "integer" if found is not None and not -(2**63) <= found < 2**63:
                raise ValueError("too large")
            case "instant" if found is not None:
                found = _instant(name, found)
            case "duration" if found is not None and abs(found) > _LONGEST:
                raise ValueError("too long")
            case "json":
                if not _is_plain(found):
                    raise ValueError("too deep")
                found = freeze(found)
                to_json(found)
            case _:
                pass
    except (ValidationError, ValueError, TypeError, OverflowError, NotBase64) as error:
        raise Refused("bad_field", name) from error
    return found
