"""Service tokens under attack: bent, of another kind, in another place."""

import re
from collections import Counter
from typing import Any

import pytest

from tests.features.services.pair import SCOPE, Pair, claims_of, pair
from tests.told import ADA, browser, problem
from watchword.crypto.jose import sign
from watchword.testing.story import bearer

TYPE = "service+jwt"


def own(two: Pair, claims: dict[str, Any], *, typ: str = TYPE) -> str:
    """What our own key signs."""
    return "wwx_" + sign(claims, key=two.reports.auth.keys.active(), typ=typ)


@pytest.mark.capability("S1-20", "DEF-12")
@pytest.mark.standard("CVE row 26", "CVE row 32", "8: 9.2.1", "8: 9.2.2")
async def test_every_claim_of_a_service_token_counts(sqlite_url: str) -> None:
    async with pair(sqlite_url) as two:
        _, claims = claims_of(await two.token())
        assert (await two.call(own(two, claims))).status_code == 200
        for name in claims:
            left = {key: value for key, value in claims.items() if key != name}
            problem(await two.call(own(two, left)), 401, "invalid_token")
        other = await two.billing.auth.services.grant("other", audience="reports", scopes=[SCOPE])
        strange = await two.billing.auth.services.grant("strange", audience="elsewhere")
        wrong: list[dict[str, Any]] = [
            {"aud": "billing"},
            {"aud": ["reports", "billing"]},
            {"aud": "http://localhost:8000"},
            {"iss": "http://localhost:9000"},
            {"sub": "billing"},
            {"sub": "service:other"},
            {"sub": "service:"},
            {"gid": other.id},
            {"gid": strange.id, "sub": "service:strange"},
            {"gid": ""},
            {"gid": 1},
            {"gid": [claims["gid"]]},
            {"scope": [SCOPE]},
            {"scope": None},
            {"exp": str(claims["exp"])},
            {"iat": claims["exp"]},
        ]
        for change in wrong:
            problem(await two.call(own(two, {**claims, **change})), 401, "invalid_token")
        problem(await two.call(own(two, {**claims, "gid": "x"})), 401, "revoked_token")
        wider = own(two, {**claims, "scope": f"{SCOPE} admin"})
        assert (await two.call(wider)).json()["scopes"] == [SCOPE]  # its grant says what it may
        for typ in ("JWT", "at+jwt", "service", "application/at+jwt", ""):
            problem(await two.call(own(two, claims, typ=typ)), 401, "invalid_token")


@pytest.mark.capability("S1-20", "DEF-12")
@pytest.mark.invariant("I-02", "I-03")
@pytest.mark.standard("CVE row 26", "CVE row 32")
async def test_a_service_token_and_an_access_token_are_never_one_another(sqlite_url: str) -> None:
    async with pair(sqlite_url) as two:
        token = await two.token()
        await two.reports.join()
        signed_in = await two.reports.log_in()
        access = signed_in["access_token"]
        for bent in (
            token.removeprefix("wwx_"),
            f"wwx_{access}",
            f"wwx_{token}",
            f"wwk_{token}",
            token.upper(),
            "wwx_",
            f"{token}.",
            f"wwx_{signed_in['refresh_token']}",
        ):
            problem(await two.call(bent), 401, "invalid_token")
            problem(await two.call(bent, "/mine"), 401, "invalid_token")
        _, claims = claims_of(token)
        as_user = {**claims, "sub": "x", "client_id": "reports", "sid": "x"}
        stranger = sign(as_user, key=two.reports.auth.keys.active(), typ=TYPE)
        problem(await two.call(stranger), 401, "invalid_token")
        for name in ("session", "access", "refresh"):
            for value in (token, token.removeprefix("wwx_")):
                async with browser(two.reports.app, Cookie=f"{name}={value}") as client:
                    assert (await client.get("/figures")).status_code == 401
        for path in ("refresh", "logout"):
            for value in (token, token.removeprefix("wwx_")):
                answer = await two.reports.client.post(
                    f"/auth/{path}", json={"refresh_token": value}
                )
                assert answer.status_code in (401, 422)  # 422: longer than any refresh token
        problem(
            await two.reports.client.post("/auth/logout", headers=bearer(token)),
            401,
            "not_authenticated",
        )
        assert (await two.call(token)).status_code == 200
        assert (await two.reports.me(access)).status_code == 200


@pytest.mark.invariant("I-02", "I-25")
@pytest.mark.parametrize("check", ["cached", "stateless"])
async def test_no_route_of_ours_gives_a_service_more_than_a_stranger_gets(
    check: Any, sqlite_url: str
) -> None:
    async with pair(sqlite_url, token_check=check) as two:
        token, client = await two.token(), two.reports.client
        asked = Counter[str]()
        for path, methods in two.reports.app.openapi()["paths"].items():
            if not path.startswith("/auth/"):
                continue
            for method in methods:
                where = re.sub(r"\{[^}]*\}", "x", path)
                nobody = await client.request(method, where)
                service = await client.request(method, where, headers=bearer(token))
                if service.status_code in (401, 403):
                    asked["refused"] += 1
                else:
                    assert service.status_code == nobody.status_code, (method, path)
                    assert nobody.status_code not in (401, 403), (method, path)
                    asked["public"] += 1
        assert asked["refused"] >= 8
        assert asked["public"] >= 5


@pytest.mark.capability("S1-20")
async def test_a_user_whose_id_looks_like_a_services_is_not_one(sqlite_url: str) -> None:
    async with pair(sqlite_url) as two:
        token = await two.token()
        await two.reports.auth.passwords.create_user(
            email=ADA,
            password="correct horse battery staple",
            id="service:billing",
            is_verified=True,
        )
        async with browser(two.reports.app) as client:
            await two.reports.log_in(transport="cookie", client=client)
            problem(await client.get("/figures"), 403, "forbidden")
            both = await client.get("/both", headers=bearer(token))
            problem(both, 401, "conflicting_credentials")
