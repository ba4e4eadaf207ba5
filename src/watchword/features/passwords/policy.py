"""What a password must be."""

import unicodedata

from watchword.features.passwords import context
from watchword.features.passwords.common import is_common
from watchword.features.passwords.settings import PasswordSettings
from watchword.features.passwords.strength import password_entropy, score_of
from watchword.kernel.errors import Fault

MAX_BYTES = 1024  # whatever max_length says; bounds what a hash has to read


def normal(password: str) -> str:
    """The form that is hashed: NFC, so that two keyboards give one password. Nothing else."""
    return unicodedata.normalize("NFC", password)


def is_oversize(password: str) -> bool:
    """Too long to look at, whatever else it is."""
    return len(password) > 4 * MAX_BYTES


def faults_of(
    password: str, settings: PasswordSettings, *, field: str, words: tuple[str, ...] = ()
) -> list[Fault]:
    """All that is wrong with a new password, in one go.

    Args:
        password: as it came.
        settings: what it must be.
        field: what it is called in the request.
        words: what it must not contain, as `context.normal_words` makes them.
    """
    if is_oversize(password):
        return [_too_long(settings, field)]  # before any work that grows with its length
    text = normal(password)
    faults: list[Fault] = []
    if len(text) < settings.min_length:
        detail = f"needs at least {settings.min_length} characters"
        faults.append(Fault(field, "password_too_short", detail))
    if len(text) > settings.max_length or len(text.encode("utf-8", "replace")) > MAX_BYTES:
        faults.append(_too_long(settings, field))
    faults += [
        missing
        for is_required, is_one, missing in (
            (
                settings.require_upper,
                str.isupper,
                Fault(field, "password_missing_upper", "needs an upper-case letter"),
            ),
            (
                settings.require_lower,
                str.islower,
                Fault(field, "password_missing_lower", "needs a lower-case letter"),
            ),
            (
                settings.require_digit,
                str.isdigit,
                Fault(field, "password_missing_digit", "needs a digit"),
            ),
            (
                settings.require_symbol,
                _is_symbol,
                Fault(field, "password_missing_symbol", "needs a symbol"),
            ),
        )
        if is_required and not any(map(is_one, text))
    ]
    if settings.check_context and context.contained(text, words):
        detail = "contains your address, your name or the name of this service"
        faults.append(Fault(field, "password_contains_context", detail))
    # One reason for being easy to guess: to be too short, or on the list, says it all.
    if settings.check_common and is_common(text):
        faults.append(Fault(field, "password_common", "is one of those that are tried first"))
    elif len(text) >= settings.min_length and _is_guessable(text, settings, words):
        detail = "is easy to guess: words that do not belong together are better"
        faults.append(Fault(field, "password_too_guessable", detail))
    return faults


def compromised(field: str) -> Fault:
    """The fault of a password that was seen in a breach."""
    return Fault(field, "password_compromised", "was seen in a breach: whoever has it tries it")


def _is_guessable(text: str, settings: PasswordSettings, words: tuple[str, ...]) -> bool:
    if settings.min_entropy_bits and password_entropy(text) < settings.min_entropy_bits:
        return True
    if settings.min_score == 0:
        return False
    return score_of(text, enough=settings.min_score, words=words) < settings.min_score


def _too_long(settings: PasswordSettings, field: str) -> Fault:
    detail = f"has at most {settings.max_length} characters and {MAX_BYTES} bytes"
    return Fault(field, "password_too_long", detail)


def _is_symbol(letter: str) -> bool:
    return not letter.isalnum() and not letter.isspace()
