"""Looking at tokens: for people who look for a fault, and never in place of a check."""

import base64
import json
from collections.abc import AsyncGenerator
from datetime import timedelta
from typing import Any

import pytest

from tests.told import ADA, Story, problem, telling
from watchword.crypto.jose import sign
from watchword.crypto.signatures import SigningKey
from watchword.features.tokens import Check, Inspection, tokens
from watchword.kernel.errors import InvalidToken
from watchword.kernel.principal import Identity
from watchword.testing.story import bearer, without_limits


@pytest.fixture
async def story() -> AsyncGenerator[Story]:
    features = [tokens(leeway="5s"), *(f for f in without_limits() if f.name != "tokens")]
    async with telling(features=features) as told:
        await told.join()
        yield told


def claims_in(token: str) -> dict[str, Any]:
    text = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def by_name(found: Inspection) -> dict[str, Check]:
    return {each.name: each for each in found.checks}


@pytest.mark.capability("S0-26", "S0-27")
async def test_peeking_reads_and_proves_nothing(story: Story) -> None:
    token = (await story.log_in())["access_token"]
    story.move(minutes=10)
    seen = story.auth.tokens.peek(token)
    claims = claims_in(token)
    assert (seen.typ, seen.alg) == ("at+jwt", "ES256")
    assert seen.kid == story.auth.keys.active().kid
    assert dict(seen.claims) == claims
    assert seen.expires_at is not None
    assert int(seen.expires_at.timestamp()) == claims["exp"]
    assert seen.age is not None
    assert timedelta(minutes=10) <= seen.age < timedelta(minutes=10, seconds=1)
    assert seen.time_left is not None
    assert timedelta(minutes=4, seconds=59) <= seen.time_left <= timedelta(minutes=5)
    assert seen.is_expiring_soon()
    assert not seen.is_expiring_soon(timedelta(minutes=4))
    assert not seen.should_refresh
    story.move(minutes=2, seconds=1)
    assert story.auth.tokens.peek(token).should_refresh
    story.move(minutes=4)
    over = story.auth.tokens.peek(token)
    assert over.time_left is not None
    assert over.time_left < timedelta(0)
    # A stranger's token is read just as well: what comes of it is no identity.
    forged = sign({**claims, "sub": "root"}, key=SigningKey.generate("ES256"), typ="at+jwt")
    read = story.auth.tokens.peek(forged)
    assert read.claims["sub"] == "root"
    assert not isinstance(read, Identity)
    assert not hasattr(read, "principal")
    problem(await story.me(forged), 401, "invalid_token")
    bare = story.auth.tokens.peek(sign({}, key=SigningKey.generate("ES256"), typ="x"))
    assert (bare.expires_at, bare.issued_at, bare.age, bare.time_left) == (None,) * 4
    assert bare.should_refresh
    assert bare.is_expiring_soon()
    with pytest.raises(InvalidToken):
        story.auth.tokens.peek("wwr_nothing")


async def bent(story: Story) -> dict[str, tuple[str, str]]:
    """Tokens with one fault each: the check that must name it, and a word of the reason."""
    pair = await story.log_in()
    token, claims = pair["access_token"], claims_in(pair["access_token"])
    now = int(story.clock.now().timestamp())
    key, stranger = story.auth.keys.active(), SigningKey.generate("ES256")

    def made(typ: str = "at+jwt", **changes: Any) -> str:
        merged = {**claims, **changes}
        return sign({k: v for k, v in merged.items() if v is not ...}, key=key, typ=typ)

    gone = await story.log_in()
    await story.client.post("/auth/logout", headers=bearer(gone["access_token"]))
    header = json.dumps({"alg": "RS256", "kid": key.kid, "typ": "at+jwt"}).encode()
    swapped = base64.urlsafe_b64encode(header).rstrip(b"=").decode() + token[token.index(".") :]
    letter = token.rpartition(".")[2][0]
    flipped = "A" if letter != "A" else "B"
    return {
        "form": ("a.b", "segments"),
        "refresh": (pair["refresh_token"], "refresh token"),
        "typ": (made("JWT"), "another kind"),
        "kid": (sign(claims, key=stranger, typ="at+jwt"), "no key of this system"),
        "alg": (swapped, "ES256"),
        "signature": (
            token.rpartition(".")[0] + "." + flipped + token.rpartition(".")[2][1:],
            "signature",
        ),
        "iss": (made(iss="https://other.example"), "http://localhost:8000"),
        "aud": (made(aud="https://other.example"), "http://localhost:8000"),
        "iat": (made(iat=now + 60), "s in the future"),
        "nbf": (made(nbf=now + 60), "is a clock wrong"),
        "exp": (made(exp=now - 60), "60 s ago"),
        "exp missing": (made(exp=...), "missing"),
        "exp type": (made(exp=str(now + 60)), "wrong type"),
        "sid": (made(sid=...), "missing"),
        "sub": (made(sub="\x00"), "wrong type"),
        "client_id": (made(client_id=""), "wrong type"),
        "session": (gone["access_token"], "logout"),
        "session unknown": (made(sid="nobody"), "no such session"),
        "session of another app": (made(client_id="another"), "watchword"),
    }


@pytest.mark.capability("S1-42", "S4-04", "S1-18")
async def test_inspection_names_what_the_gate_refuses(story: Story) -> None:
    for name, (token, word) in (await bent(story)).items():
        found = await story.auth.tokens.inspect(token)
        assert found.failing is not None, name
        wanted = "form" if name == "refresh" else name.partition(" ")[0]
        assert found.failing.name == wanted, (name, found.failing)
        assert word in found.failing.why, (name, found.failing)
        assert (await story.me(token)).status_code == 401, name
        told = " ".join(each.why for each in found.checks)
        if "." in token:
            assert token.rpartition(".")[2] not in told
        assert name != "refresh" or token not in told


@pytest.mark.capability("S1-42")
async def test_what_the_gate_takes_passes_every_check(story: Story) -> None:
    token = (await story.log_in())["access_token"]
    for text in (token, f"Bearer {token}", f"  {token}\n"):
        found = await story.auth.tokens.inspect(text)
        assert found.failing is None
        assert {each.verdict for each in found.checks} == {"passed"}
        names = [each.name for each in found.checks]
        assert names[:5] == ["form", "typ", "kid", "alg", "signature"]
        assert names[-2:] == ["exp", "session"]
    story.move(minutes=15)  # within the leeway: the gate takes it, and so does this
    assert (await story.auth.tokens.inspect(token)).failing is None
    assert (await story.me(token)).status_code == 200
    story.move(seconds=5)
    over = (await story.auth.tokens.inspect(token)).failing
    assert over is not None
    assert (over.name, over.why.startswith("it ended 5 s ago")) == ("exp", True)
    problem(await story.me(token), 401, "expired_token")


async def test_a_strangers_text_changes_no_terminal(story: Story) -> None:
    claims = claims_in((await story.log_in())["access_token"])
    key = story.auth.keys.active()
    loud = sign({**claims, "iss": "\x1b[2J" + "x" * 1000}, key=key, typ="\x1b[31m")
    found = await story.auth.tokens.inspect(loud)
    assert all(each.why.isprintable() and len(each.why) < 400 for each in found.checks)
    assert by_name(found)["typ"].verdict == "failed"


@pytest.mark.capability("S0-30", "S0-31", "S1-13")
async def test_revoking_a_token_ends_its_session_and_no_other(story: Story) -> None:
    first, second, third = [await story.log_in() for _ in range(3)]
    revoke = story.auth.tokens.revoke
    assert await revoke(first["access_token"], why="stolen laptop")
    assert not await revoke(first["access_token"])
    sid = str(story.auth.tokens.peek(first["access_token"]).claims["sid"])
    session = await story.auth.sessions.get(sid)
    assert session is not None
    user = await story.auth.users.find(ADA)
    assert (session.ended_why, session.user_id) == ("stolen laptop", user.id)
    assert session.ended_at is not None
    problem(await story.me(first["access_token"]), 401, "revoked_token")
    body = {"refresh_token": first["refresh_token"]}
    problem(await story.client.post("/auth/refresh", json=body), 401, "revoked_token")
    assert await revoke(second["refresh_token"])
    problem(await story.me(second["access_token"]), 401, "revoked_token")
    assert (await story.me(third["access_token"])).status_code == 200
    forged = sign(claims_in(third["access_token"]), key=SigningKey.generate("ES256"), typ="at+jwt")
    for wrong in (forged, "x", "wwr_" + "A" * 65):
        with pytest.raises(InvalidToken):
            await revoke(wrong)
    assert (await story.me(third["access_token"])).status_code == 200
