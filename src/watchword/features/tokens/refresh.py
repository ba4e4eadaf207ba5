"""What a refresh token looks like: a part that selects the family, a part that proves."""

import re
from dataclasses import dataclass

from watchword.kernel.errors import InvalidToken
from watchword.kernel.secrets import Digest, Secret, digest_of, new_secret

PREFIX = "wwr_"
REMEMBERED = "wwm_"
_FORM = re.compile(r"(wwr_|wwm_)([A-Za-z0-9_-]{22})([A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """128 random bits for the family, 256 for the generation.

    The first part is never stored or shown elsewhere, so only who held a token of the family
    can name it: a wrong second part is then no guess, it is reuse.
    """

    family: Secret
    proof: Secret
    remembered: bool = False  # of the longer profile: known before the row is read

    @property
    def text(self) -> Secret:
        """What the client holds."""
        prefix = REMEMBERED if self.remembered else PREFIX
        return Secret(prefix + self.family.reveal() + self.proof.reveal())

    @property
    def family_digest(self) -> Digest:
        """How the session's row names the family. Another prefix names no family at all."""
        purpose = "refresh-family-remembered" if self.remembered else "refresh-family"
        return digest_of(self.family, purpose=purpose)

    @property
    def proof_digest(self) -> Digest:
        """How the session's row names the generation."""
        return digest_of(self.proof, purpose="refresh-proof")

    def successor(self) -> "RefreshToken":
        """The next generation: same family, fresh randomness."""
        return RefreshToken(self.family, new_secret(bits=256), self.remembered)


def new_family(*, remembered: bool = False) -> RefreshToken:
    """The first token of a session."""
    return RefreshToken(new_secret(bits=128), new_secret(bits=256), remembered)


def read(text: str) -> RefreshToken:
    """Take a token apart. Raises InvalidToken for what was never one."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise InvalidToken(note="not the form of a refresh token")
    return RefreshToken(Secret(match[2]), Secret(match[3]), match[1] == REMEMBERED)
