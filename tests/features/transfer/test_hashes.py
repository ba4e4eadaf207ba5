"""Users of other systems sign in with the password they have; their hash becomes one of ours."""

import io
import json
from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from tests.hashes import (
    FIREBASE_HASH,
    FIREBASE_KEY,
    FIREBASE_PASSWORD,
    FIREBASE_SALT,
    FOREIGN,
    MADE_BY_OTHERS,
)
from tests.told import Story, problem, telling
from watchword.features.passwords import Password, passwords
from watchword.features.transfer import (
    PRESETS,
    FirebaseExport,
    FirebaseParameters,
    JsonLines,
    Reading,
    Tally,
)
from watchword.features.users import User
from watchword.testing.story import without_limits

READING = Reading(origin="jsonl", columns=PRESETS["jsonl"])


def lines(rows: Iterable[Mapping[str, Any]]) -> JsonLines:
    return JsonLines(io.BytesIO("".join(json.dumps(row) + "\n" for row in rows).encode()))


async def bring_in(story: Story, source: Any, reading: Reading = READING) -> Tally:
    tally = Tally()
    async for _ in story.auth.transfer.bring_in(source, reading=reading, tally=tally):
        pass
    return tally


async def stored_of(story: Story, email: str) -> str:
    user = await story.auth.users.by_email(email)
    assert isinstance(user, User)
    found = await story.auth.store.get(Password, user_id=user.id)
    assert found is not None
    return found.hash


@pytest.mark.capability("S1-02", "S4-14")
@pytest.mark.parametrize("name", FOREIGN)
async def test_a_user_of_each_kind_signs_in_and_their_hash_becomes_ours(name: str) -> None:
    kind, foreign = FOREIGN[name]
    async with telling() as story:
        row = {"id": 7, "email": "ada@example.com", "password_hash": foreign, "is_verified": True}
        tally = await bring_in(story, lines([row]))
        assert (tally.created, dict(tally.kinds)) == (1, {kind: 1})
        assert await stored_of(story, "ada@example.com") == foreign  # kept as it was

        body = {"email": "ada@example.com", "password": "not the password"}
        problem(await story.client.post("/auth/login", json=body), 401, "invalid_credentials")
        assert await stored_of(story, "ada@example.com") == foreign

        tokens = await story.log_in(password=MADE_BY_OTHERS)
        assert tokens["user"]["id"] == "7"
        ours = await stored_of(story, "ada@example.com")
        assert ours.startswith("$argon2id$v=19$m=8,t=1,p=1$")  # the test cost of the default
        await story.log_in(password=MADE_BY_OTHERS)
        assert await stored_of(story, "ada@example.com") == ours


async def test_the_configured_scheme_may_be_bcrypt(database_url: str) -> None:
    features = [each for each in without_limits() if each.name != "passwords"]
    features.append(passwords(hash_scheme="bcrypt"))
    _, foreign = FOREIGN["django pbkdf2_sha256"]
    async with telling(database_url, features=features) as story:
        row = {"email": "ada@example.com", "password_hash": foreign, "is_verified": True}
        assert (await bring_in(story, lines([row]))).created == 1
        await story.log_in(password=MADE_BY_OTHERS)
        assert (await stored_of(story, "ada@example.com")).startswith("$2b$04$")


EXPORT = {
    "users": [
        {
            "localId": "kxY3LPBmc0TqDuR1cLBcAyXvQzF2",
            "email": "ada@example.com",
            "emailVerified": True,
            "passwordHash": FIREBASE_HASH,
            "salt": FIREBASE_SALT,
            "displayName": "Ada",
            "createdAt": "1486324065000",
            "providerUserInfo": [],
        },
        {
            "localId": "second",
            "email": "bob@example.com",
            "emailVerified": False,
            "disabled": True,
            "createdAt": "1486324065000",
        },
        {"localId": "third", "phoneNumber": "+4930000000"},
        {"localId": "fourth", "email": "eve@example.com", "passwordHash": "!", "salt": "!"},
    ]
}


@pytest.mark.parametrize("indent", [None, 2], ids=["compact", "spread"])
async def test_users_of_firebase_sign_in(indent: int | None) -> None:
    features = [each for each in without_limits() if each.name != "passwords"]
    features.append(passwords(firebase_signer_keys=[FIREBASE_KEY]))
    async with telling(features=features) as story:
        (signer,) = story.auth.transfer.signers()
        reading = Reading(
            origin="firebase",
            columns=PRESETS["firebase"],
            firebase=FirebaseParameters(signer=signer),
        )
        source = FirebaseExport(io.BytesIO(json.dumps(EXPORT, indent=indent).encode()))
        tally = await bring_in(story, source, reading)
        assert (tally.created, tally.without_password) == (2, 1)
        assert dict(tally.kinds) == {"firebase-scrypt": 1}
        assert dict(tally.refused) == {"no_address": 1, "unknown_hash": 1}
        assert FIREBASE_KEY[:12] not in await stored_of(story, "ada@example.com")
        bob = await story.auth.users.by_email("bob@example.com")
        assert isinstance(bob, User)
        assert (bob.is_active, bob.is_verified) == (False, False)

        wrong = {"email": "ada@example.com", "password": "user1Password"}
        problem(await story.client.post("/auth/login", json=wrong), 401, "invalid_credentials")
        tokens = await story.log_in(password=FIREBASE_PASSWORD)
        user = tokens["user"]
        assert user["id"] == "kxY3LPBmc0TqDuR1cLBcAyXvQzF2"
        assert (user["username"], user["is_verified"]) == ("Ada", True)
        assert user["created_at"].startswith("2017-02-05T19:47:45")
        assert (await stored_of(story, "ada@example.com")).startswith("$argon2id$")


async def test_the_signer_key_is_masked_wherever_settings_are_shown() -> None:
    environ = {"WATCHWORD_PASSWORDS__FIREBASE_SIGNER_KEYS": FIREBASE_KEY}
    async with telling(environ=environ) as story:
        shown = {each.key: each.value for each in story.auth.settings}
        assert shown["passwords.firebase_signer_keys"] == "***"
        assert FIREBASE_KEY[:12] not in repr(story.auth.settings)
        assert FIREBASE_KEY[:12] not in repr(story.auth.settings_of("passwords"))
        assert len(story.auth.transfer.signers()) == 1
