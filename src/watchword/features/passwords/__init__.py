"""Passwords: signing up and signing in with an address and something one knows."""

from typing import Any, Unpack

from watchword.crypto.hashing import Hasher
from watchword.features.passwords import context
from watchword.features.passwords.breaches import (
    BreachChecker,
    BreachesUnknown,
    RangeChecker,
    url_fault,
)
from watchword.features.passwords.common import is_common
from watchword.features.passwords.endings import ENDS
from watchword.features.passwords.events import PasswordChanged, PasswordDistrusted
from watchword.features.passwords.records import Password
from watchword.features.passwords.routes import routes
from watchword.features.passwords.service import PasswordProof, Passwords
from watchword.features.passwords.settings import (
    FOUR_CLASSES,
    NIST,
    SYMBOL_AND_BREACHES,
    THREE_CLASSES,
    THREE_CLASSES_AND_BITS,
    PasswordSettings,
    PolicyOptions,
)
from watchword.features.passwords.strength import (
    Strength,
    password_entropy,
    password_strength,
    strength_band,
)
from watchword.features.sessions import Sessions
from watchword.features.sign_in import SignIns
from watchword.features.users import UserDeleted, Users
from watchword.kernel.errors import ConfigurationError
from watchword.kernel.events import Events
from watchword.kernel.feature import Feature
from watchword.kernel.ports import Credential, Proof, Registrations, SignInStep

__all__ = [
    "FOUR_CLASSES",
    "NIST",
    "SYMBOL_AND_BREACHES",
    "THREE_CLASSES",
    "THREE_CLASSES_AND_BITS",
    "BreachChecker",
    "BreachesUnknown",
    "Password",
    "PasswordChanged",
    "PasswordDistrusted",
    "Passwords",
    "Strength",
    "is_common",
    "password_entropy",
    "password_strength",
    "passwords",
    "strength_band",
]


class PasswordOptions(PolicyOptions, total=False):
    """The keyword arguments of `passwords`: `PasswordSettings`, and a checker of one's own."""

    breach_checker: BreachChecker


def passwords(**options: Unpack[PasswordOptions]) -> Feature[Passwords]:
    """The feature of passwords. `breach_checker=` is asked in place of `breach_url`."""
    own = options.get("breach_checker")
    given = {name: value for name, value in options.items() if name != "breach_checker"}

    def service(wiring: Any) -> Passwords:
        settings: PasswordSettings = wiring.settings
        fault = url_fault(settings.breach_url, development=wiring.development)
        if settings.check_breaches and own is None and fault is not None:
            raise ConfigurationError([fault])
        words = context.words_of_app(
            client_id=wiring.core.client_id,
            issuer=wiring.issuer,
            others=settings.context_words,
        )
        return Passwords(
            store=wiring.store,
            settings=settings,
            clock=wiring.clock,
            users=wiring.get(Users),
            sessions=wiring.get(Sessions),
            hasher=Hasher(
                pool=wiring.hash_pool,
                scheme=settings.hash_scheme,
                time_cost=settings.argon2_time_cost,
                memory_cost=settings.argon2_memory_cost,
                parallelism=settings.argon2_parallelism,
                bcrypt_rounds=settings.bcrypt_rounds,
                firebase_signer_keys=settings.firebase_signer_keys,
                floor=wiring.attempts.floor,
            ),
            sign_ins=wiring.get(SignIns),
            registrations=wiring.every(Registrations),
            attempts=wiring.attempts,
            app_words=context.normal_words(words),
            breaches=own
            or RangeChecker(
                url=settings.breach_url,
                timeout=settings.breach_timeout,
                keep_for=settings.breach_cache_ttl,
                clock=wiring.clock,
            ),
        )

    def listens(service: Passwords, events: Events) -> None:
        events.join(UserDeleted, service.forget_user)

    return Feature(
        name="passwords",
        needs=("users", "sessions", "sign_in"),
        service=service,
        settings=PasswordSettings,
        given=given,
        ends=ENDS,
        records=(Password,),
        offers=lambda service: {
            Credential: service,
            SignInStep: service,
            Proof: PasswordProof(passwords=service),
        },
        listens=listens,
        routes=routes,
    )
