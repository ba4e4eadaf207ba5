"""`watchword secret reseal`: everything sealed comes under the secret in force."""

import asyncio
from dataclasses import replace
from typing import Any

import jwt
import pytest

from tests.cli.command import Folder
from tests.told import browser, csrf_of, telling
from watchword.crypto.keys import RootSecrets, generate_secret
from watchword.crypto.sealing import Sealer, key_id_of
from watchword.features.keys import StoredKey
from watchword.kernel.feature import Feature
from watchword.kernel.secrets import Secret
from watchword.kernel.settings import Settings
from watchword.resealing import Resealing, reseal
from watchword.storage.record import place_of, record
from watchword.storage.store import Paging, Store, where
from watchword.testing.story import without_limits


@record(name="test_sealed_badge", key=("owner", "number"), sealed=("token", "code"))
class Badge:
    """As a feature of somebody else would keep two secrets."""

    realm: str
    owner: str
    number: int
    token: str
    code: str | None = None


def features() -> list[Any]:
    badges: Feature[object] = Feature(
        name="badges", service=lambda _: object(), settings=Settings, records=(Badge,)
    )
    return [*without_limits(), badges]


def sealed_badge(sealer: Sealer, realm: str, number: int, *, code: bool) -> Badge:
    bare = Badge(realm=realm, owner="ada", number=number, token="")
    token = sealer.seal(b"token", **place_of(bare, "token"))
    return replace(
        bare, token=token, code=sealer.seal(b"code", **place_of(bare, "code")) if code else None
    )


async def badges_of(store: Store) -> list[Badge]:
    found: list[Badge] = []
    for realm in ("main", "other"):
        paging = Paging(order=("owner", "number"), limit=1000)
        found += (await store.in_realm(realm).find(Badge, paging)).items
    return found


async def resealed(store: Store, records: tuple[type, ...], sealer: Sealer) -> Resealing:
    progress = Resealing()
    async for _ in reseal(store, records, sealer, progress):
        pass
    return progress


@pytest.mark.invariant("I-17", "I-11")
async def test_every_sealed_field_of_every_realm_comes_under_the_new_secret(
    database_url: str,
) -> None:
    old, new = generate_secret(), generate_secret()
    before, after = Sealer(RootSecrets(old)), RootSecrets(new, [old])
    async with telling(database_url, secret=old, features=features()) as story:
        store = story.auth.store
        for number in range(120):  # two realms: more than a batch
            for realm in ("main", "other"):
                badge = sealed_badge(before, realm, number, code=number % 2 == 0)
                await store.in_realm(realm).insert(badge)
        records = story.auth.records

        stopped = Resealing()
        async for _ in reseal(store, records, Sealer(after), stopped):
            break  # and somebody kills it here
        assert 0 < stopped.seen < 361
        # Two go on at once; what one did the other finds done.
        done = await asyncio.gather(
            resealed(store, records, Sealer(after)), resealed(store, records, Sealer(after))
        )
        total = 2 * 120 + 2 * 60 + 1  # tokens, codes, and the signing key
        assert [each.seen for each in done] == [total, total]
        assert stopped.resealed + sum(each.resealed for each in done) == total
        only = Sealer(RootSecrets(new))
        for badge in await badges_of(store):
            assert only.open(badge.token, **place_of(badge, "token")) == b"token"
            if badge.code is not None:
                assert only.open(badge.code, **place_of(badge, "code")) == b"code"
        again = await resealed(store, records, Sealer(after))
        assert (again.resealed, again.current) == (0, total)
    async with telling(database_url, secret=new, features=features()):
        pass  # the old one is needed no more


@pytest.mark.invariant("I-17")
async def test_what_changes_while_it_is_resealed_is_not_overwritten(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = generate_secret(), generate_secret()
    before = Sealer(RootSecrets(old))
    async with telling(database_url, secret=old, features=features()) as story:
        store = story.auth.store
        await store.insert(sealed_badge(before, "main", 1, code=False))
        update, place = Store.update, {"owner": "ada", "number": 1}

        async def slow(self: Store, kind: Any, conditions: Any, /, **changes: Any) -> Any:
            monkeypatch.setattr(Store, "update", update)
            bare = Badge(realm="main", owner="ada", number=1, token="")
            fresh = before.seal(b"changed", **place_of(bare, "token"))
            await store.update(Badge, where(**place), token=fresh)
            return await update(self, kind, conditions, **changes)

        monkeypatch.setattr(Store, "update", slow)
        sealer = Sealer(RootSecrets(new, [old]))
        assert (await resealed(store, (Badge,), sealer)).resealed == 1
        badge = await store.get(Badge, **place)
        assert badge is not None
        assert Sealer(RootSecrets(new)).open(badge.token, **place_of(badge, "token")) == b"changed"


async def fill(url: str, secret: Secret) -> str:
    async with telling(url, secret=secret) as story:
        await story.join()
        return str((await story.log_in())["access_token"])


async def ask(url: str, token: str, **options: Any) -> int:
    async with telling(url, **options) as story:
        story.move(seconds=1)
        return (await story.me(token)).status_code


@pytest.mark.invariant("I-17")
def test_the_command_says_what_it_did_and_fails_while_something_cannot_be_opened(
    folder: Folder,
) -> None:
    url = f"sqlite:///{folder.path / 'app.db'}"
    old, new, stranger = (generate_secret() for _ in range(3))
    token = asyncio.run(fill(url, old))
    command = ("secret", "reseal", "--database", url)

    none = folder.run(*command)
    assert none.returncode == 2
    assert "WATCHWORD_SECRET" in none.stderr
    lost = folder.run(*command, WATCHWORD_SECRET=stranger.reveal())
    assert lost.returncode == 1
    assert lost.stdout.split()[-4:] == ["1", "cannot", "be", "opened"]
    assert f"signing_key {jwt.get_unverified_header(token)['kid']}" in lost.stderr

    environ = {"WATCHWORD_SECRET": new.reveal(), "WATCHWORD_OLD_SECRETS": old.reveal()}
    for first, second in (("1", "0"), ("0", "1")):
        done = folder.run(*command, **environ)
        assert done.returncode == 0, done.stderr
        words = [line.split()[0] for line in done.stdout.splitlines()]
        assert words == [first, second]
    assert asyncio.run(ask(url, token, secret=new)) == 200
    for each in (old, new):
        assert each.reveal() not in lost.stderr + done.stdout + done.stderr


@pytest.mark.capability("S3-11", "S3-10")
@pytest.mark.invariant("I-14", "I-17")
async def test_another_root_secret_signs_nobody_out_and_breaks_no_form(database_url: str) -> None:
    """Access tokens, the cookie's CSRF token, and a refresh whose answer was lost."""
    old, new = generate_secret(), generate_secret()
    async with telling(database_url, secret=old) as story:
        await story.join()
        pair = await story.log_in()
        visitor = browser(story.app)
        await story.log_in(transport="cookie", client=visitor)
        csrf = csrf_of(visitor)
        body = {"refresh_token": pair["refresh_token"]}
        first = (await story.client.post("/auth/refresh", json=body)).json()
    async with telling(database_url, secret=new, old_secrets=(old,)) as story:
        assert (await story.me(first["access_token"])).status_code == 200
        again = await story.client.post("/auth/refresh", json=body)
        assert again.status_code == 200, again.text
        assert again.json()["refresh_token"] == first["refresh_token"]
        other = browser(story.app)
        other.cookies.update(visitor.cookies)
        answer = await other.post("/auth/logout", headers=csrf)
        assert answer.status_code == 204, answer.text
        [key] = (await story.auth.store.find(StoredKey, Paging(order=("kid",)))).items
        assert key_id_of(key.sealed) == RootSecrets(old).current_id
