"""Every answer of our API is data and says so; an https server says that it is one."""

import httpx
import pytest

from watchword.crypto.keys import generate_secret
from watchword.http.headers import API, HSTS
from watchword.presets import Watchword
from watchword.server.asgi import server_app
from watchword.testing import telling


@pytest.mark.standard("ASVS 3.2.1", "ASVS 3.4.5")
async def test_answers_and_refusals_alike_stay_data() -> None:
    """A 200, a 204, a 401, a 403 and a 422, from a route and from a guard."""
    async with telling() as story:
        markup = "<script>alert(1)</script>"
        await story.join()
        held = await story.log_in()
        bearer = {"Authorization": f"Bearer {held['access_token']}"}
        answers = [
            await story.client.patch("/auth/me", json={"username": markup}, headers=bearer),
            await story.client.get("/auth/me"),
            await story.client.post("/auth/login", json={"email": markup}),
            await story.client.post("/auth/logout", headers=bearer),
            await story.client.get("/.well-known/jwks.json"),
        ]
    assert [answer.status_code for answer in answers] == [200, 401, 422, 204, 200]
    for answer in answers:
        for name, value in API.items():
            assert answer.headers[name] == value
        assert "html" not in answer.headers.get("content-type", "")


@pytest.mark.standard("ASVS 3.4.1")
@pytest.mark.parametrize(
    ("public_url", "expected"), [("https://id.example.com", HSTS), ("http://localhost:8000", None)]
)
async def test_an_https_server_says_so_in_every_answer(
    sqlite_url: str, public_url: str, expected: str | None
) -> None:
    """Found, not found, wrong method, refused: the header is on all of them, or on none."""
    auth = Watchword(
        sqlite_url,
        environment="production",
        secret=generate_secret(),
        public_url=public_url,
        environ={},
        served=True,
    )
    app = server_app(auth)
    async with (
        auth.running(),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=public_url) as client,
    ):
        for method, path in [
            ("GET", "/healthz"),
            ("GET", "/nowhere"),
            ("DELETE", "/healthz"),
            ("GET", "/auth/me"),
        ]:
            answer = await client.request(method, path)
            assert answer.headers.get("Strict-Transport-Security") == expected, path
