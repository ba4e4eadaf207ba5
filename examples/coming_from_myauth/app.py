"""An app that leaves MyAuth: its settings under their old names, with Watchword behind them.

Run it: JWT_SECRET="$(watchword secret generate)" watchword dev app:app
"""

import os
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, cast
from urllib.parse import quote

from fastapi import FastAPI

from watchword import CurrentUser, Watchword
from watchword.features.email_change import email_change
from watchword.features.keys import keys
from watchword.features.mail import mail
from watchword.features.passwords import FOUR_CLASSES, passwords
from watchword.features.recovery import recovery
from watchword.features.tokens import tokens
from watchword.features.users import users
from watchword.features.verification import verification
from watchword.kernel.feature import Feature


def features_from(theirs: Mapping[str, str]) -> Sequence[Feature[Any]]:
    """MyAuth's settings, with MyAuth's defaults, as features."""
    access = timedelta(minutes=int(theirs.get("ACCESS_TOKEN_EXPIRE_MINUTES", "30")))
    refresh = timedelta(days=int(theirs.get("REFRESH_TOKEN_EXPIRE_DAYS", "7")))
    reset = timedelta(minutes=int(theirs.get("PASSWORD_RESET_TOKEN_EXPIRE_MINUTES", "15")))
    return (
        users(username_required=True),
        passwords(
            **FOUR_CLASSES,
            hash_scheme="bcrypt",
            bcrypt_rounds=int(theirs.get("PASSWORD_HASH_ROUNDS", "12")),
        ),
        keys(algorithm=cast("Any", theirs.get("JWT_ALGORITHM", "HS256"))),
        tokens(access_ttl=access, refresh_ttl=refresh),
        recovery(ttl=reset),
        verification(email_verification="optional", ttl="24h"),
        email_change(),  # MyAuth had none
        mail(**cast("Any", mail_from(theirs))),
    )


def mail_from(theirs: Mapping[str, str]) -> dict[str, str]:
    """`SMTPEmailService(host, port, username, password, use_tls)` as a URL; none: no mail."""
    if "SMTP_HOST" not in theirs:
        return {}
    account = quote(theirs["SMTP_USERNAME"], safe="") + "@" if "SMTP_USERNAME" in theirs else ""
    given = {"url": f"smtp://{account}{theirs['SMTP_HOST']}:{theirs.get('SMTP_PORT', '587')}"}
    if "SMTP_PASSWORD" in theirs:
        given["password"] = theirs["SMTP_PASSWORD"]
    return given


def database_from(theirs: Mapping[str, str]) -> str:
    """`SQLiteUserRepository(db_path)` or `PostgreSQLUserRepository(host, port, …)` as a URL."""
    if "DB_HOST" not in theirs:
        return f"sqlite:///{quote(theirs.get('DB_PATH', 'auth.db'))}"
    user, password = (quote(theirs.get(name, ""), safe="") for name in ("DB_USER", "DB_PASSWORD"))
    place = f"{theirs['DB_HOST']}:{theirs.get('DB_PORT', '5432')}"
    return f"postgresql://{user}:{password}@{place}/{theirs.get('DB_NAME', 'auth')}"


def watchword_from(theirs: Mapping[str, str]) -> Watchword:
    """What `AuthService(…)` was. Without JWT_SECRET it does not start, as before."""
    return Watchword(
        database_from(theirs),
        features=features_from(theirs),
        secret=theirs.get("JWT_SECRET", ""),
    )


auth = watchword_from(os.environ)
app = FastAPI(title="Coming from MyAuth")
auth.install(app)


@app.get("/hello")
async def hello(user: CurrentUser) -> str:
    """Greet whoever is signed in."""
    return f"Hello, {user.username}"
