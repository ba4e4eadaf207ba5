"""`watchword doctor`: what it says of settings, and its exit status."""

import json
from typing import Any

import pytest

from tests.cli.command import Done, Folder
from watchword.crypto.keys import generate_secret

SOUND = {
    "WATCHWORD_SECRET": generate_secret().reveal(),
    "WATCHWORD_PUBLIC_URL": "https://accounts.example.com",
    "WATCHWORD_MAIL": "smtps://mailer:pw-of-mail@mail.example.com",
}


def examined(folder: Folder, *arguments: str, **env: str) -> tuple[Done, list[dict[str, Any]]]:
    """What it says, as JSON, of sound settings and these."""
    done = folder.run("doctor", "--json", *arguments, **(SOUND | env))
    return done, json.loads(done.stdout)["lines"]


def graded(lines: list[dict[str, Any]], grade: str) -> list[dict[str, Any]]:
    return [line for line in lines if line["grade"] == grade]


@pytest.mark.capability("S0-117")
def test_sound_settings_of_production_are_all_green(folder: Folder) -> None:
    done = folder.run("doctor", **SOUND)
    assert done.returncode == 0, done.stdout
    assert "0 fail, 0 warn" in done.stdout
    assert folder.run("doctor", "--strict", **SOUND).returncode == 0
    assert list(folder.path.iterdir()) == []  # it makes nothing


# Each alone, and the setting that is named.
BAD: list[tuple[dict[str, str], str]] = [
    ({"WATCHWORD_SECRET": "supersecret"}, "secret"),
    ({"WATCHWORD_KEYS__SECRET": "0123456789abcdef"}, "keys.secret"),
    ({"WATCHWORD_TOKENS__ACCESS_TTL": "24h"}, "tokens.access_ttl"),
    ({"WATCHWORD_TOKENS__REFRESH_TTL": "90d"}, "tokens.refresh_ttl"),
    (
        {
            "WATCHWORD_CORS__ENABLED": "true",
            "WATCHWORD_CORS__ALLOW_ORIGINS": "*",
            "WATCHWORD_CORS__ALLOW_CREDENTIALS": "true",
        },
        "cors.allow_origins",
    ),
    ({"WATCHWORD_PUBLIC_URL": "http://accounts.example.com"}, "public_url"),
    ({"WATCHWORD_TRUSTED_PROXIES": "*"}, "trusted_proxies"),
    ({"WATCHWORD_TRUSTED_PROXIES": "0.0.0.0/0"}, "trusted_proxies"),
    ({"WATCHWORD_AUDIT__ENABLED": "false"}, "audit.enabled"),
    ({"WATCHWORD_LIMITS__ENABLED": "false"}, "limits.enabled"),
    ({"WATCHWORD_LIMITS__STORE": "memory:", "WEB_CONCURRENCY": "4"}, "limits.store"),
]


@pytest.mark.capability("S0-117", "S4-02")
@pytest.mark.parametrize(
    ("env", "setting"), BAD, ids=[f"{n}-{bad[1]}" for n, bad in enumerate(BAD)]
)
def test_each_danger_alone_fails_and_names_its_setting(
    folder: Folder, env: dict[str, str], setting: str
) -> None:
    done, lines = examined(folder, **env)
    assert done.returncode == 1
    assert [line["setting"] for line in graded(lines, "fail")] == [setting]
    said = folder.run("doctor", **(SOUND | env))
    assert said.returncode == 1
    assert setting in said.stdout
    for secret in (SOUND["WATCHWORD_SECRET"], "pw-of-mail", "supersecret", "0123456789abcdef"):
        assert secret not in said.stdout + done.stdout


@pytest.mark.capability("S1-35", "S4-33")
@pytest.mark.parametrize(
    ("env", "setting"),
    [
        ({"WATCHWORD_TOKENS__ACCESS_TTL": "31m"}, "tokens.access_ttl"),
        ({"WATCHWORD_TOKENS__REFRESH_TTL": "31d"}, "tokens.refresh_ttl"),
        ({"WATCHWORD_TOKENS__REFRESH_TTL": "6d"}, "tokens.refresh_ttl"),
        ({"WATCHWORD_CSRF__ENABLED": "false"}, "csrf.enabled"),
        ({"WATCHWORD_TOKEN_CHECK": "stateless"}, "token_check"),
        ({"WATCHWORD_ACCEPT_MISSING": "limiter"}, "accept_missing"),
        ({"WATCHWORD_LOCKOUT__ENABLED": "false"}, "lockout.enabled"),
        ({"WATCHWORD_VERIFICATION": "optional"}, "verification.email_verification"),
        ({"WATCHWORD_SESSIONS__IP_MODE": "plain"}, "sessions.ip_mode"),
        ({"WATCHWORD_ALLOWED_HOSTS": "*"}, "allowed_hosts"),
        ({"WATCHWORD_ENVIRONMENT": "development"}, "environment"),
        ({"WATCHWORD_MAIL__ALLOW_PLAIN": "true"}, "mail.allow_plain"),
        ({"WATCHWORD_OLD_SECRETS": generate_secret().reveal()}, "old_secrets"),
        ({"WATCHWORD_PASSWORDS__MIN_LENGTH": "8"}, "passwords.min_length"),
        ({"WATCHWORD_KEYS__ALGORITHM": "HS256"}, "keys.algorithm"),
        ({"WATCHWORD_SESSIONS__ABSOLUTE_TIMEOUT": "25h"}, "sessions.absolute_timeout"),
        ({"WATCHWORD_AUDIT__IP_MODE": "plain"}, "audit.ip_mode"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_only_doubtful_warns(folder: Folder, env: dict[str, str], setting: str) -> None:
    done, lines = examined(folder, **env)
    assert done.returncode == 0
    assert setting in [line["setting"] for line in graded(lines, "warn")]
    assert examined(folder, "--strict", **env)[0].returncode == 1


def test_every_line_says_why_and_what_to_do(folder: Folder) -> None:
    _, lines = examined(folder, WATCHWORD_TOKENS__ACCESS_TTL="24h", WATCHWORD_CSRF__ENABLED="false")
    for line in lines:
        assert line["found"]
        if line["grade"] != "ok":
            assert line["why"]
            assert line["remedy"]
            assert line["rows"]
            assert line["env"].startswith("WATCHWORD_")


@pytest.mark.capability("S1-45", "S4-02")
def test_a_secret_that_stands_in_the_code_fails(folder: Folder) -> None:
    hard = generate_secret().reveal()
    (folder.path / "shop_of_code.py").write_text(
        "from fastapi import FastAPI\nfrom watchword import Watchword\n"
        "from watchword.features.keys import keys\nfrom watchword.presets import standard\n"
        f"KEY = '{hard}'\n"
        "given = [each for each in standard() if each.name != 'keys']\n"
        "auth = Watchword('sqlite:///shop.db', features=[*given, keys(secret=KEY)])\n"
        "app = FastAPI()\nauth.install(app)\n"
    )
    done = folder.run("doctor", "--app", "shop_of_code:app", "--json", **SOUND)
    assert done.returncode == 1, done.stderr
    failing = graded(json.loads(done.stdout)["lines"], "fail")
    assert [(line["check"], line["setting"]) for line in failing] == [
        ("secrets in code", "keys.secret")
    ]
    assert "shop_of_code.py" in failing[0]["found"]
    assert hard not in done.stdout


def test_an_app_that_refuses_to_start_is_graded_all_the_same(folder: Folder) -> None:
    (folder.path / "shop_of_http.py").write_text(
        "from fastapi import FastAPI\nfrom watchword import Watchword\n"
        "auth = Watchword('sqlite:///shop.db')\napp = FastAPI()\nauth.install(app)\n"
    )
    env = SOUND | {"WATCHWORD_PUBLIC_URL": "http://accounts.example.com"}
    done = folder.run("doctor", "--app", "shop_of_http:app", **env)
    assert done.returncode == 1
    assert "public_url" in done.stdout


def test_it_asks_the_database_that_is_there(folder: Folder) -> None:
    env = SOUND | {"WATCHWORD_DATABASE": f"sqlite:///{folder.path / 'here.db'}"}
    assert folder.run("migrate", **env).returncode == 0
    done = folder.run("doctor", "--json", **env)
    lines = json.loads(done.stdout)["lines"]
    told = {line["check"]: line["grade"] for line in lines}
    assert told["store"] == "ok"
    assert told["schema"] == "ok"
    assert told["change feed"] == "ok"
    assert done.returncode == 0
    asked = folder.run("doctor", "--json", "--no-connect", **env)
    assert "store" not in {line["check"] for line in json.loads(asked.stdout)["lines"]}


@pytest.mark.parametrize(
    ("env", "setting"),
    [
        ({"WATCHWORD_DATABASE": "postgresql://nobody:pw-of-pg@127.0.0.1:9/none"}, "database"),
        ({"WATCHWORD_SESSIONS__STORE": "redis://:pw-of-pg@127.0.0.1:9/0"}, "sessions.store"),
    ],
    ids=["database", "sessions"],
)
def test_a_store_that_is_away_fails(folder: Folder, env: dict[str, str], setting: str) -> None:
    env = SOUND | {"WATCHWORD_DATABASE": f"sqlite:///{folder.path / 'here.db'}"} | env
    (folder.path / "here.db").touch()
    done = folder.run("doctor", "--json", **env)
    assert done.returncode == 1
    failing = graded(json.loads(done.stdout)["lines"], "fail")
    assert [line["setting"] for line in failing] == [setting]
    assert "pw-of-pg" not in done.stdout + done.stderr
