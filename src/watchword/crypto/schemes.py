"""The two libraries that hash passwords, loaded with the first hash."""

import secrets
from typing import Final

import bcrypt
from argon2.exceptions import VerificationError, VerifyMismatchError
from argon2.low_level import Type, hash_secret, verify_secret

_KINDS: Final = {"id": Type.ID, "i": Type.I, "d": Type.D}


def argon2_hash(password: bytes, *, time_cost: int, memory_cost: int, parallelism: int) -> str:
    """Hash with argon2id into a PHC string; `memory_cost` in KiB."""
    return hash_secret(
        password,
        secrets.token_bytes(16),
        time_cost=time_cost,
        memory_cost=memory_cost,
        parallelism=parallelism,
        hash_len=32,
        type=Type.ID,
    ).decode("ascii")


def argon2_matches(password: bytes, stored: str, *, kind: str) -> bool | None:
    """Run one hash and compare; None if the library finds nothing to run."""
    try:
        return verify_secret(stored.encode("ascii"), password, _KINDS[kind])
    except VerifyMismatchError:
        return False
    except VerificationError:
        return None


def bcrypt_hash(password: bytes, *, rounds: int) -> str:
    """Hash with bcrypt."""
    return bcrypt.hashpw(password, bcrypt.gensalt(rounds)).decode("ascii")


def bcrypt_matches(password: bytes, stored: str) -> bool | None:
    """Run one hash and compare; None if the library finds nothing to run."""
    try:
        return bcrypt.checkpw(password, stored.encode("ascii"))
    except ValueError:
        return None


def bcrypt_salt(*, rounds: int) -> str:
    """The part of a bcrypt hash before its result."""
    return bcrypt.gensalt(rounds).decode("ascii")
