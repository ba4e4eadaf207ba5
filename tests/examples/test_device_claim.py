"""The example of tokens that name a phone does what its README says."""

import importlib.util
from pathlib import Path
from types import ModuleType

import jwt
import pytest
from fastapi import FastAPI

from watchword.testing import telling
from watchword.testing.story import bearer

EXAMPLE = Path(__file__).parents[2] / "examples" / "device_claim"
PHONE = {"device_id": "9f1c6a52-phone", "device_type": "ios"}


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WATCHWORD_ENVIRONMENT", "development")
    spec = importlib.util.spec_from_file_location("device_claim", EXAMPLE / "app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.capability("S1-21", "S1-22")
async def test_a_token_that_names_a_phone_is_refused_beside_another(example: ModuleType) -> None:
    app = FastAPI()
    async with telling(app=app, audience="mobile-app") as story:
        example.install(app, story.auth)
        await story.register()
        pair = await story.log_in()
        early = bearer(pair["access_token"])
        assert (await story.client.post("/notes", headers=early)).status_code == 403
        assert (await story.client.get("/notes", headers=early)).status_code == 401

        assert (await story.client.put("/phone", json=PHONE, headers=early)).status_code == 204
        other = {**PHONE, "device_id": "somebody-elses"}
        assert (await story.client.put("/phone", json=other, headers=early)).status_code == 409
        body = {"refresh_token": pair["refresh_token"]}
        token = (await story.client.post("/auth/refresh", json=body)).json()["access_token"]
        claims = jwt.decode(token, options={"verify_signature": False})
        assert claims["aud"] == "mobile-app"
        assert (claims["device_id"], claims["device_type"]) == ("9f1c6a52-phone", "ios")

        for device, status in (("9f1c6a52-phone", 200), ("another-phone", 401), (None, 401)):
            headers = bearer(token) | ({} if device is None else {"Device-Id": device})
            for method in ("GET", "POST"):
                answer = await story.client.request(method, "/notes", headers=headers)
                assert answer.status_code == status, (method, device)
        mismatch = await story.client.get("/notes", headers=bearer(token))
        assert "Device mismatch detected" in mismatch.text
        assert "A header proves nothing" in (EXAMPLE / "README.md").read_text("utf-8")
