"""Passwords: signing up and signing in with an address and something one knows."""

from typing import Any, Unpack

from watchword.crypto.hashing import Hasher
from watchword.features.passwords.endings import ENDS
from watchword.features.passwords.events import PasswordChanged
from watchword.features.passwords.records import Password
from watchword.features.passwords.routes import routes
from watchword.features.passwords.service import PasswordProof, Passwords
from watchword.features.passwords.settings import NIST, PasswordOptions, PasswordSettings
from watchword.features.sessions import Sessions
from watchword.features.sign_in import SignIns
from watchword.features.users import UserDeleted, Users
from watchword.kernel.events import Events
from watchword.kernel.feature import Feature
from watchword.kernel.ports import Credential, Proof, Registrations

__all__ = [
    "NIST",
    "Password",
    "PasswordChanged",
    "Passwords",
    "passwords",
]


def passwords(**options: Unpack[PasswordOptions]) -> Feature[Passwords]:
    """The feature of passwords."""

    def service(wiring: Any) -> Passwords:
        settings: PasswordSettings = wiring.settings
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
            ),
            sign_ins=wiring.get(SignIns),
            registrations=wiring.every(Registrations),
            attempts=wiring.attempts,
        )

    def listens(service: Passwords, events: Events) -> None:
        events.join(UserDeleted, service.forget_user)

    return Feature(
        name="passwords",
        needs=("users", "sessions", "sign_in"),
        service=service,
        settings=PasswordSettings,
        given=dict(options),
        ends=ENDS,
        records=(Password,),
        offers=lambda service: {
            Credential: service,
            Proof: PasswordProof(passwords=service),
        },
        listens=listens,
        routes=routes,
    )
