"""Users over HTTP: oneself, one's own fields, and how one leaves."""

from typing import Annotated, Any

import pytest

from tests.told import ADA, EVE, browser, cookie_session, fields_of, problem, telling
from watchword import Own, User, user_fields
from watchword.features.users import users
from watchword.testing.story import bearer, without_limits

HIDDEN = {"hash", "password", "epoch", "email_key", "realm"}


@user_fields
class Member(User):
    """A user with a field of every right."""

    nickname: Annotated[str, Own(read="self", write="self")] = "nobody"
    plan: Annotated[str, Own(read="self", write="admin")] = "free"
    note: Annotated[str, Own(read="admin", write="admin")] = "watch them"
    secret_score: int = 7


def with_members() -> list[Any]:
    return [users(Member), *(each for each in without_limits() if each.name != "users")]


@pytest.mark.capability("S2-02", "S2-11", "S0-74")
async def test_a_user_sees_themselves_and_nothing_that_proves_anything(database_url: str) -> None:
    async with telling(database_url) as story:
        made = await story.register(username="Ada")
        assert made.status_code == 201
        tokens = await story.log_in()
        me = (await story.me(tokens["access_token"])).json()
        assert me == made.json() == tokens["user"]
        assert set(me) == {
            "id",
            "email",
            "username",
            "roles",
            "user_settings",
            "is_verified",
            "is_active",
            "created_at",
            "updated_at",
        }
        assert not HIDDEN & set(me)
        assert (me["roles"], me["is_verified"], me["is_active"]) == ([], False, True)


@pytest.mark.capability("S2-02")
async def test_two_users_may_have_one_name_but_not_one_address(database_url: str) -> None:
    async with telling(database_url) as story:
        await story.register(ADA, username="the same")
        assert (await story.register(EVE, username="the same")).status_code == 201
        problem(await story.register(ADA.upper(), username="x"), 409, "user_already_exists")


@pytest.mark.capability("DEF-33", "S2-03")
@pytest.mark.parametrize(
    "again",
    ["ADA@EXAMPLE.COM", "Ada@Example.Com", "ａda@example.com", "ada@EXAMPLE.com"],
    ids=["upper", "mixed", "fullwidth", "domain"],
)
async def test_an_address_is_the_same_in_whatever_form(database_url: str, again: str) -> None:
    async with telling(database_url) as story:
        await story.register(ADA)
        answer = await story.register(again)
        assert answer.status_code in (409, 422), answer.text
        assert (await story.auth.users.page()).next is None
        assert len((await story.auth.users.page()).items) == 1


@pytest.mark.capability("S2-19")
async def test_a_user_changes_name_and_settings(database_url: str) -> None:
    async with telling(database_url) as story:
        await story.register()
        token = (await story.log_in())["access_token"]
        change = {"username": "Ada L.", "user_settings": {"theme": {"dark": True}, "list": [1]}}
        answer = await story.client.patch("/auth/me", json=change, headers=bearer(token))
        assert answer.status_code == 200
        assert (await story.me(token)).json() == answer.json()
        assert answer.json()["user_settings"] == change["user_settings"]
        nothing = await story.client.patch("/auth/me", json={}, headers=bearer(token))
        assert nothing.json()["username"] == "Ada L."
        none = await story.client.patch(
            "/auth/me", json={"username": None, "user_settings": None}, headers=bearer(token)
        )
        assert (none.json()["username"], none.json()["user_settings"]) == (None, {})


@pytest.mark.capability("S2-19")
async def test_settings_are_limited_in_size(database_url: str) -> None:
    async with telling(database_url) as story:
        await story.register()
        token = (await story.log_in())["access_token"]
        large = {"user_settings": {"text": "x" * (16 * 1024)}}
        answer = await story.client.patch("/auth/me", json=large, headers=bearer(token))
        body = problem(answer, 422, "validation_failed")
        assert fields_of(body) == {("user_settings", "settings_too_large")}
        assert (await story.me(token)).json()["user_settings"] == {}


@pytest.mark.capability("DEF-14")
@pytest.mark.parametrize(
    "field",
    ["id", "email", "roles", "is_verified", "is_active", "epoch", "realm", "email_key", "hash"],
)
async def test_nobody_sets_what_is_not_theirs(database_url: str, field: str) -> None:
    async with telling(database_url) as story:
        await story.register()
        tokens = await story.log_in()
        auth = bearer(tokens["access_token"])
        answer = await story.client.patch("/auth/me", json={field: "x"}, headers=auth)
        body = problem(answer, 422, "validation_failed")
        assert fields_of(body) == {(field, "unknown_field")}
        if field != "email":
            others: dict[str, Any] = {field: ["admin"]}
            refused = await story.register(EVE, **others)
            assert fields_of(problem(refused, 422, "validation_failed")) == {
                (field, "unknown_field")
            }
        assert (await story.me(tokens["access_token"])).json() == tokens["user"]


@pytest.mark.capability("S1-09", "DEF-14")
async def test_own_fields_are_read_and_written_by_whom_they_name(database_url: str) -> None:
    async with telling(database_url, features=with_members()) as story:
        made = await story.register(nickname="Enchantress")
        assert made.status_code == 201
        assert (made.json()["nickname"], made.json()["plan"]) == ("Enchantress", "free")
        assert not {"note", "secret_score"} & set(made.json())
        token = (await story.log_in())["access_token"]
        changed = await story.client.patch(
            "/auth/me", json={"nickname": "Countess"}, headers=bearer(token)
        )
        assert changed.json()["nickname"] == "Countess"
        for field in ("plan", "note", "secret_score"):
            answer = await story.client.patch(
                "/auth/me", json={field: "gold"}, headers=bearer(token)
            )
            assert fields_of(problem(answer, 422, "validation_failed")) == {
                (field, "unknown_field")
            }
            refused = await story.register(EVE, **{field: "gold"})
            problem(refused, 422, "validation_failed")
        user = await story.auth.users.find(ADA)
        assert isinstance(user, Member)
        assert (user.nickname, user.plan, user.note) == ("Countess", "free", "watch them")
        upgraded = await story.auth.users.change(user.id, plan="gold", secret_score=9)
        assert isinstance(upgraded, Member)
        assert upgraded.plan == "gold"
        assert (await story.me(token)).json()["plan"] == "gold"


async def test_an_own_field_of_the_wrong_type_is_named(database_url: str) -> None:
    async with telling(database_url, features=with_members()) as story:
        answer = await story.register(nickname=["a", "list"])
        body = problem(answer, 422, "validation_failed")
        assert {error["field"] for error in body["errors"]} == {"nickname"}


@pytest.mark.capability("S2-02")
async def test_a_name_is_asked_for_where_settings_say_so(database_url: str) -> None:
    features = [users(username_required=True), *(f for f in without_limits() if f.name != "users")]
    async with telling(database_url, features=features) as story:
        body = problem(await story.register(), 422, "validation_failed")
        assert fields_of(body) == {("username", "missing")}
        assert (await story.register(username="Ada")).status_code == 201
        token = (await story.log_in())["access_token"]
        answer = await story.client.patch(
            "/auth/me", json={"username": None}, headers=bearer(token)
        )
        assert fields_of(problem(answer, 422, "validation_failed")) == {("username", "missing")}


@pytest.mark.invariant("I-15")
async def test_leaving_needs_a_fresh_sign_in_and_takes_everything(database_url: str) -> None:
    async with telling(database_url) as story:
        await story.join()
        tokens = await story.log_in()
        other = await story.log_in()
        auth = bearer(tokens["access_token"])
        story.move(minutes=5, seconds=1)
        body = problem(
            await story.client.delete("/auth/me", headers=auth),
            401,
            "insufficient_user_authentication",
        )
        assert body["max_age"] == 300
        proof = {"method": "password", "password": "correct horse battery staple"}
        again = await story.client.post("/auth/reauthenticate", json=proof, headers=auth)
        assert again.status_code == 204
        assert (await story.client.delete("/auth/me", headers=auth)).status_code == 204
        for dead in (tokens, other):
            problem(await story.me(dead["access_token"]), 401, "revoked_token")
            answer = await story.client.post(
                "/auth/refresh", json={"refresh_token": dead["refresh_token"]}
            )
            assert answer.status_code == 401
        answer = await story.client.post("/auth/login", json={"email": ADA, "password": "x" * 12})
        problem(answer, 401, "invalid_credentials")
        assert (await story.register()).status_code == 201  # the address is free again


@pytest.mark.invariant("I-15")
async def test_the_challenge_says_how_fresh(database_url: str) -> None:
    async with telling(database_url) as story:
        await story.register()
        tokens = await story.log_in()
        story.move(minutes=6)
        answer = await story.client.delete("/auth/me", headers=bearer(tokens["access_token"]))
        challenge = answer.headers["www-authenticate"]
        assert 'error="insufficient_user_authentication"' in challenge
        assert 'max_age="300"' in challenge


async def test_leaving_takes_the_cookies_back(database_url: str) -> None:
    async with telling(database_url) as story, browser(story.app) as client:
        await story.register()
        csrf = await cookie_session(story, client)
        answer = await client.delete("/auth/me", headers=csrf)
        assert answer.status_code == 204
        assert set(client.cookies) == {"device"}  # it stays known, and opens nothing
        problem(await client.get("/auth/me"), 401, "not_authenticated")


@pytest.mark.capability("S2-18", "S2-20")
async def test_a_switched_off_account_is_over_at_once_and_stays_over(database_url: str) -> None:
    async with telling(database_url) as story:
        await story.register()
        tokens = await story.log_in()
        user = await story.auth.users.find(ADA)
        await story.auth.users.disable(user.id)
        problem(await story.me(tokens["access_token"]), 401, "revoked_token")
        answer = await story.client.post(
            "/auth/login", json={"email": ADA, "password": "correct horse battery staple"}
        )
        problem(answer, 403, "account_disabled")
        await story.auth.users.enable(user.id)
        problem(await story.me(tokens["access_token"]), 401, "revoked_token")
        await story.log_in()


@pytest.mark.capability("S2-18")
async def test_roles_are_free_words_and_reach_the_next_request(database_url: str) -> None:
    async with telling(database_url) as story:
        await story.register()
        token = (await story.log_in())["access_token"]
        user = await story.auth.users.find(ADA)
        await story.auth.users.change(user.id, roles=("editor", "größter"))
        assert (await story.me(token)).json()["roles"] == ["editor", "größter"]
        await story.auth.users.change(user.id, roles=())
        assert (await story.me(token)).json()["roles"] == []
