"""Who a request acts for."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

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

    address: str | None  # of the peer; forwarding headers are not read yet
    user_agent: str  # shortened, printable; empty if there is none


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A principal as the gate keeps it: immutable through and through (I-10)."""

    principal: Principal
    user: object | None  # the `users` feature's record; http knows no feature
    is_verified: bool
    carriage: Literal["bearer", "cookie"]
    valid_until: datetime  # the least of every expiry that bears on it
    subjects: tuple[Subject, ...]  # what, when it changes, makes this untrue
