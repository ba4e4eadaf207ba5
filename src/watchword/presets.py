"""`Watchword`: the App that most people want; the only module that lists features."""

from collections.abc import Mapping, Sequence
from typing import Any, Generic, Unpack, cast

from typing_extensions import TypeVar

from watchword.app import App
from watchword.features.api_keys import ApiKeys, api_keys
from watchword.features.audit import Audit, audit
from watchword.features.email_change import EmailChanges, email_change
from watchword.features.keys import Keys, keys
from watchword.features.limits import Limits, limits
from watchword.features.lockout import Lockout, lockout
from watchword.features.mail import Mail, mail
from watchword.features.passwords import Passwords, passwords
from watchword.features.recovery import Recovery, recovery
from watchword.features.services import Services, services
from watchword.features.sessions import Sessions, sessions
from watchword.features.sign_in import SignIns, sign_in
from watchword.features.tokens import Tokens, tokens
from watchword.features.transfer import Transfer, transfer
from watchword.features.users import User, Users, users
from watchword.features.verification import Verification, verification
from watchword.features.webhooks import Webhooks, webhooks
from watchword.kernel.clock import Clock
from watchword.kernel.errors import ConfigurationError
from watchword.kernel.feature import Feature
from watchword.kernel.settings import CoreOptions

U = TypeVar("U", bound=User, default=User)

# The functions that make features, by name. Whoever gives one of them gives the rest of its kind.
CATALOGUE = (
    users,
    keys,
    sessions,
    tokens,
    sign_in,
    passwords,
    mail,
    verification,
    recovery,
    email_change,
    transfer,
    api_keys,
    services,
    limits,
    lockout,
    audit,
    webhooks,
)


def standard() -> tuple[Feature[Any], ...]:
    """All that is there, with its defaults."""
    return tuple(make() for make in CATALOGUE)


def minimal() -> tuple[Feature[Any], ...]:
    """Addresses and passwords with a session cookie, limits and an audit; no mail, no tokens."""
    return (users(), sessions(), sign_in(), passwords(), limits(), audit())


class Watchword(App, Generic[U]):
    """Authentication for a FastAPI app.

    auth = Watchword("sqlite:///app.db")
    app = FastAPI()
    auth.install(app)
    """

    def __init__(
        self,
        database: str | None = None,
        *,
        user: type[U] = User,  # pyright: ignore[reportArgumentType]
        features: Sequence[Feature[Any]] | None = None,
        clock: Clock | None = None,
        environ: Mapping[str, str] | None = None,
        served: bool = False,
        **options: Unpack[CoreOptions],
    ) -> None:
        """Check every setting and wire the features; see `App`.

        Args:
            database: `sqlite:///app.db` or `postgresql://…`; else `WATCHWORD_DATABASE`.
            user: your own subclass of `User`, made with `user_fields`.
            features: what to install, in any order; none given: `standard()`. A feature that
                another one needs is added with its defaults.
            clock: for tests.
            environ: instead of the process's environment.
            served: `watchword serve` runs it.
            options: `CoreSettings`, by name.

        Raises:
            ConfigurationError: all that is wrong, at once.
        """
        super().__init__(
            database,
            features=_with_needs(_without_users() if features is None else features, user),
            clock=clock,
            environ=environ,
            served=served,
            **options,
        )

    @property
    def users(self) -> Users[U]:
        """Users: create, find, change, disable, delete."""
        return self.service(cast("type[Users[U]]", Users))

    @property
    def keys(self) -> Keys:
        """The keys that tokens are signed with."""
        return self.service(Keys)

    @property
    def sessions(self) -> Sessions:
        """Sessions: start, end."""
        return self.service(Sessions)

    @property
    def tokens(self) -> Tokens:
        """Access and refresh tokens."""
        return self.service(Tokens)

    @property
    def sign_ins(self) -> SignIns:
        """Sign-ins, and what is still owed for one."""
        return self.service(SignIns)

    @property
    def passwords(self) -> Passwords:
        """Passwords: set, check, change."""
        return self.service(Passwords)

    @property
    def mail(self) -> Mail:
        """The outbox."""
        return self.service(Mail)

    @property
    def verification(self) -> Verification:
        """Proof of addresses."""
        return self.service(Verification)

    @property
    def recovery(self) -> Recovery:
        """Forgotten passwords."""
        return self.service(Recovery)

    @property
    def transfer(self) -> Transfer:
        """Users on their way in from other systems, or out."""
        return self.service(Transfer)

    @property
    def email_changes(self) -> EmailChanges:
        """Changes of address."""
        return self.service(EmailChanges)

    @property
    def api_keys(self) -> ApiKeys:
        """API keys: create, list, rotate, end."""
        return self.service(ApiKeys)

    @property
    def services(self) -> Services:
        """Services, and tokens between them: grant, end, token."""
        return self.service(Services)

    @property
    def limits(self) -> Limits:
        """Limits: count, show, reset."""
        return self.service(Limits)

    @property
    def lockout(self) -> Lockout:
        """Lockouts: show, clear."""
        return self.service(Lockout)

    @property
    def audit(self) -> Audit:
        """What happened: query, export, verify."""
        return self.service(Audit)

    @property
    def webhooks(self) -> Webhooks:
        """Endpoints of others that hear of events."""
        return self.service(Webhooks)


def _without_users() -> tuple[Feature[Any], ...]:
    return tuple(feature for feature in standard() if feature.name != "users")


def _with_needs(features: Sequence[Feature[Any]], user: type[User]) -> tuple[Feature[Any], ...]:
    """The features given, and the defaults of whatever of ours they need."""
    chosen = {feature.name: feature for feature in features}
    if "users" in chosen and user is not User:
        raise ConfigurationError(
            ["your class of user is given twice: say user=… or users(…), not both"]
        )
    ours = {feature.name: feature for feature in standard()} | {"users": users(user)}
    waiting = list(features)
    while waiting:
        for need in waiting.pop().needs:
            if need not in chosen and need in ours:
                chosen[need] = ours[need]
                waiting.append(ours[need])
    repeated = [feature for feature in features if chosen[feature.name] is not feature]
    return (*chosen.values(), *repeated)


__all__ = ["CATALOGUE", "User", "Watchword", "minimal", "standard"]
