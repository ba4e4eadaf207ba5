"""How hard a password is to guess."""

import math
from dataclasses import dataclass
from typing import Final, Literal

from watchword.features.passwords.common import is_common

Band = Literal["very weak", "weak", "fair", "strong", "very strong"]

_BANDS: Final[tuple[tuple[float, Band], ...]] = (
    (28, "very weak"),
    (36, "weak"),
    (60, "fair"),
    (128, "strong"),
)

# Letters of each kind that somebody who tries them all would have to try.
_LOWER, _UPPER, _DIGITS, _SYMBOLS, _OTHERS = 26, 26, 10, 32, 100

# The estimator holds the interpreter's lock, and its work grows with the square of the length and
# with each letter that could stand for another: half a second for a hundred odd characters. So it
# sees pieces, and few such letters at once.
_PIECE = 24  # code points; a random piece is far beyond the highest score
_DISGUISES = "@({[<!|$+%"  # symbols that the estimator takes for letters
_PLAIN = "*)}]>?~&=^"  # in their place, once there are more than a disguised word has
_MOST_DISGUISES = 4
_LONGEST = 1024  # code points that are looked at
_COMMON_BITS = 17.0  # a place on a list of a hundred thousand


@dataclass(frozen=True, slots=True)
class Strength:
    """What `password_strength` says."""

    score: int  # 0 to 4
    bits: float  # of guesses, two decimals
    band: Band


def password_entropy(password: str) -> float:
    """Length times log2 of the alphabet, two decimals: what a blind search would have to try.

    Says nothing of words and patterns, so `password` has 37.6 bits; `password_strength` knows.
    """
    if not password:
        return 0.0
    ascii_only = [letter for letter in password if letter.isascii()]
    sizes = (
        (_LOWER, any(letter.islower() for letter in ascii_only)),
        (_UPPER, any(letter.isupper() for letter in ascii_only)),
        (_DIGITS, any(letter.isdigit() for letter in ascii_only)),
        (_SYMBOLS, any(not letter.isalnum() for letter in ascii_only)),
        (_OTHERS, len(ascii_only) < len(password)),
    )
    return round(len(password) * math.log2(sum(size for size, there in sizes if there)), 2)


def strength_band(bits: float) -> Band:
    """Bits in words: under 28 very weak, under 36 weak, under 60 fair, under 128 strong."""
    for limit, band in _BANDS:
        if bits < limit:
            return band
    return "very strong"


def password_strength(password: str, words: tuple[str, ...] = ()) -> Strength:
    """Estimate how many guesses a password takes of somebody who knows words and patterns.

    Args:
        password: the whole of it.
        words: what that somebody would try first: the user's names, the app's.
    """
    text = password[:_LONGEST]
    pieces = dict.fromkeys(text[at : at + _PIECE] for at in range(0, len(text), _PIECE))
    guessed = [_estimate(piece, words) for piece in pieces]
    bits = min(sum((bits for _, bits in guessed), 0.0), password_entropy(text))
    score = max((score for score, _ in guessed), default=0)
    if is_common(text):
        bits, score = min(bits, _COMMON_BITS), 0
    bits = round(bits, 2)
    return Strength(score=score, bits=bits, band=strength_band(bits))


def score_of(password: str, *, enough: int, words: tuple[str, ...] = ()) -> int:
    """0 to 4, as zxcvbn counts: 3 is 10^8 guesses, 4 is 10^10.

    A password is at least as hard to guess as its beginning, or its end: no more is looked at.
    """
    score = _estimate(password[:_PIECE], words)[0]
    if score < enough and len(password) > _PIECE:
        score = max(score, _estimate(password[-_PIECE:], words)[0])
    return score


def _estimate(piece: str, words: tuple[str, ...]) -> tuple[int, float]:
    """Score, and bits of guesses."""
    # Loads its tables at the first call, 40 ms; who only signs in does not need it.
    from zxcvbn_rs_py import zxcvbn  # noqa: PLC0415

    text = piece.encode("utf-8", "replace").decode("utf-8")  # it takes no half of a surrogate pair
    if len(set(text) & set(_DISGUISES)) > _MOST_DISGUISES:
        text = text.translate(str.maketrans(_DISGUISES, _PLAIN))
    found = zxcvbn(text, list(words))
    return int(found.score), found.guesses_log10 * math.log2(10)
