"""Who a request acts for."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from watchword.kernel.secrets import Digest, Secret

Subject = tuple[str, str]
"""What an eviction names: a kind (`user`, `session`, `client`, `key`) and its id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who a request acts for: a user, an OAuth client, a service or an anonymous device."""

    realm: str
    kind: Literal["user", "client", "service", "anonymous"]
    id: str
    session_id: str | None
    client_id: str
    roles: frozenset[str]
    scopes: frozenset[str]
    amr: tuple[str, ...]  # factors used, as RFC 8176 names them
    auth_time: datetime | None  # when the last of them was proven


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """What a request says of the device behind it. None of it proves anything."""

    address: str | None  # of the peer, or what a trusted proxy says of it
    user_agent: str  # shortened, printable; empty if there is none
    device: Digest | None = None  # of the device cookie; replayable, so only ever a hint
    fingerprint: Digest | None = None  # of the headers that a browser always sends alike
    device_cookie: Secret | None = None  # what `device` is the digest of, to be given back


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """What requests of a session must look like; None: anything."""

    address: str | None = None  # keyed hash of the address, or of its network
    fingerprint: Digest | None = None


Credential = Literal["session", "api_key", "service"]
"""What the presented credential stands for. Guards take sessions only, unless told otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A principal as the gate keeps it: immutable through and through (I-10)."""

    principal: Principal
    user: object | None  # the `users` feature's record; http knows no feature
    is_verified: bool
    carriage: Literal["bearer", "cookie"]
    valid_until: datetime  # the least of every expiry that bears on it
    subjects: tuple[Subject, ...]  # what, when it changes, makes this untrue
    credential: Credential = "session"
    claims: Mapping[str, object] | None = None  # of the access token, if one was presented
    binding: Binding | None = None  # checked at every request, on hits too (I-10)
    is_checked: bool = True  # was its row read? False only under token_check="stateless" (I-25)
