"""What a password must be."""

import unicodedata

from watchword.features.passwords.settings import PasswordSettings
from watchword.kernel.errors import Fault

MAX_BYTES = 1024  # whatever max_length says; bounds what a hash has to read


def normal(password: str) -> str:
    """The form that is hashed: NFC, so that two keyboards give one password. Nothing else."""
    return unicodedata.normalize("NFC", password)


def faults_of(password: str, settings: PasswordSettings, *, field: str) -> list[Fault]:
    """All that is wrong with a new password, in one go."""
    if len(password) > 4 * MAX_BYTES:
        return [_too_long(settings, field)]  # before any work that grows with its length
    text = normal(password)
    faults: list[Fault] = []
    if len(text) < settings.min_length:
        detail = f"needs at least {settings.min_length} characters"
        faults.append(Fault(field, "password_too_short", detail))
    if len(text) > settings.max_length or len(text.encode("utf-8", "replace")) > MAX_BYTES:
        faults.append(_too_long(settings, field))
    wanted = (
        (settings.require_upper, str.isupper, "upper", "an upper-case letter"),
        (settings.require_lower, str.islower, "lower", "a lower-case letter"),
        (settings.require_digit, str.isdigit, "digit", "a digit"),
        (settings.require_symbol, _is_symbol, "symbol", "a symbol"),
    )
    for required, is_one, name, prose in wanted:
        if required and not any(is_one(letter) for letter in text):
            faults.append(Fault(field, f"password_missing_{name}", f"needs {prose}"))
    return faults


def _too_long(settings: PasswordSettings, field: str) -> Fault:
    detail = f"has at most {settings.max_length} characters and {MAX_BYTES} bytes"
    return Fault(field, "password_too_long", detail)


def _is_symbol(letter: str) -> bool:
    return not letter.isalnum() and not letter.isspace()
