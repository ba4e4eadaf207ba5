"""Features: each can be left out with those that need it, and the rest goes on."""

import random
from typing import Any, cast, get_type_hints

import pytest

from tests.told import ADA, ANOTHER, PASSWORD, Story, browser, csrf_of, problem, telling
from watchword.kernel.feature import Feature
from watchword.kernel.settings import SECTIONS, CoreOptions, CoreSettings
from watchword.presets import CATALOGUE, standard
from watchword.testing.story import bearer

NAMES = [feature.name for feature in standard()]


def without(name: str) -> list[Feature[Any]]:
    """The features that are left, in an order of no meaning."""
    left = {feature.name: feature for feature in standard()}
    gone = [name]
    while gone:
        left.pop(gone.pop(), None)
        gone += [each.name for each in left.values() if not set(each.needs) <= set(left)]
    features = list(left.values())
    random.Random(name).shuffle(features)
    return features


async def walk(story: Story) -> list[str]:
    """What remains of the walkthrough; names the steps that were taken."""
    has, client, steps = story.auth.has, story.client, list[str]()
    if not has("passwords"):
        if has("users"):
            await story.auth.users.create(email=ADA)
            problem(await client.get("/auth/me"), 401, "not_authenticated")
            steps.append("users")
        return steps
    assert (await story.register()).status_code == 201
    steps.append("register")
    if has("verification"):
        assert (await story.verify()).status_code == 204
        steps.append("verify")
    transport = "bearer" if has("tokens") else "cookie"
    pair = await story.log_in(transport=transport)
    headers = bearer(pair["access_token"]) if has("tokens") else csrf_of(client)
    assert (await client.get("/auth/me", headers=headers)).json()["email"] == ADA
    steps.append("login")
    body = {"method": "password", "password": PASSWORD}
    answer = await client.post("/auth/reauthenticate", json=body, headers=headers)
    assert answer.status_code == 204
    if has("tokens"):
        body = {"refresh_token": pair["refresh_token"]}
        pair = (await client.post("/auth/refresh", json=body)).json()
        headers = bearer(pair["access_token"])
        steps.append("refresh")
    password = PASSWORD
    if has("recovery"):
        await client.post("/auth/password-reset-request", json={"email": ADA})
        await story.mails()
        body = {"token": story.outbox.token(ADA, "wwp"), "new_password": ANOTHER}
        assert (await client.post("/auth/password-reset", json=body)).status_code == 204
        assert (await client.get("/auth/me", headers=headers)).status_code == 401
        password = ANOTHER
        client.cookies.clear()
        pair = await story.log_in(password=password, transport=transport)
        headers = bearer(pair["access_token"]) if has("tokens") else csrf_of(client)
        steps.append("reset")
    if has("email_change"):
        body = {"new_email": "new@example.com", "current_password": password}
        answer = await client.post("/auth/email/change", json=body, headers=headers)
        assert answer.status_code == 202
        await story.mails()
        token = story.outbox.token("new@example.com", "wwe")
        answer = await client.post("/auth/email/confirm", json={"token": token}, headers=headers)
        assert answer.status_code == 204
        steps.append("email")
    answer = await client.post("/auth/logout", headers=headers)
    assert answer.status_code == 204
    assert (await client.get("/auth/me", headers=headers)).status_code == 401
    steps.append("logout")
    return steps


EXPECTED = {
    "users": [],
    "sessions": ["users"],
    "sign_in": ["users"],
    "passwords": ["users"],
    "keys": ["register", "verify", "login", "reset", "email", "logout"],
    "tokens": ["register", "verify", "login", "reset", "email", "logout"],
    "mail": ["register", "login", "refresh", "logout"],
    "verification": ["register", "login", "refresh", "reset", "email", "logout"],
    "recovery": ["register", "verify", "login", "refresh", "email", "logout"],
    "email_change": ["register", "verify", "login", "refresh", "reset", "logout"],
    "transfer": ["register", "verify", "login", "refresh", "reset", "email", "logout"],
    "api_keys": ["register", "verify", "login", "refresh", "reset", "email", "logout"],
    "services": ["register", "verify", "login", "refresh", "reset", "email", "logout"],
    "limits": ["register", "verify", "login", "refresh", "reset", "email", "logout"],
    "lockout": ["register", "verify", "login", "refresh", "reset", "email", "logout"],
    "audit": ["register", "verify", "login", "refresh", "reset", "email", "logout"],
    "webhooks": ["register", "verify", "login", "refresh", "reset", "email", "logout"],
}

PROPERTIES = {"email_change": "email_changes", "sign_in": "sign_ins"}


def test_the_list_is_of_all_features() -> None:
    assert set(EXPECTED) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
async def test_the_rest_goes_on_without(name: str, sqlite_url: str) -> None:
    features = without(name)
    assert name not in {feature.name for feature in features}
    async with telling(sqlite_url, features=features) as story:
        assert story.auth.has(name) is False
        with pytest.raises(AttributeError, match="not installed"):
            getattr(story.auth, PROPERTIES.get(name, name))
        assert await walk(story) == EXPECTED[name]
        schema = await story.client.get("/openapi.json")
        assert schema.status_code == 200


@pytest.mark.parametrize("seed", range(3))
async def test_the_order_they_are_given_in_means_nothing(seed: int, sqlite_url: str) -> None:
    features = list(standard())
    random.Random(seed).shuffle(features)
    async with telling(sqlite_url, features=features) as story, browser(story.app):
        steps = ["register", "verify", "login", "refresh", "reset", "email", "logout"]
        assert await walk(story) == steps


def options_of(make: Any) -> set[str]:
    """The keyword arguments that a feature function names."""
    unpacked = get_type_hints(make, include_extras=True)["options"]
    return set(get_type_hints(unpacked.__args__[0]))


@pytest.mark.parametrize("make", CATALOGUE, ids=lambda make: make.__name__)
def test_the_keyword_arguments_are_the_settings(make: Any) -> None:
    feature = cast("Feature[Any]", make())
    not_settings = {"sender", "breach_checker"}  # objects of one's own, which no file could name
    assert options_of(make) - not_settings == set(feature.settings.model_fields)
    assert feature.name == make.__name__


def test_the_apps_keyword_arguments_are_its_settings() -> None:
    settings = set(CoreSettings.model_fields) - {"database"} | set(SECTIONS)
    assert set(CoreOptions.__annotations__) == settings
    hints = get_type_hints(CoreOptions)
    for name, section in SECTIONS.items():
        assert set(hints[name].__annotations__) == set(section.model_fields)
