"""No secret stands in what we publish."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.told import PASSWORD, telling
from watchword.crypto.keys import generate_secret, secret_fault
from watchword.kernel.secrets import Secret

ROOT = Path(__file__).parents[2]

ROOT_SECRET = re.compile(r"wws_[A-Za-z0-9_-]{20,}")
OTHERS = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/]{40}"
    r"|\bAKIA[0-9A-Z]{16}\b"
    r"|\bgh[pousr]_[A-Za-z0-9]{36}\b"
    r"|\bxox[abp]-[0-9A-Za-z-]{20,}"
    r"|\"private_key_id\":\s*\"[0-9a-f]{40}\""
)


def published() -> list[Path]:
    """The files that git keeps, but for tests, whose keys are vectors of standards."""
    named = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    paths = [ROOT / name for name in named.split("\0") if name and not name.startswith("tests/")]
    return [path for path in paths if path.is_file() and path.stat().st_size < 4 * 1024 * 1024]


def secrets_in(text: str) -> list[str]:
    whole = (
        found
        for found in ROOT_SECRET.findall(text)
        if secret_fault(Secret(found), development=False) is None
    )
    return [*whole, *OTHERS.findall(text)]


@pytest.mark.capability("S1-45")
def test_no_file_holds_a_secret() -> None:
    assert secrets_in(f"x = '{generate_secret().reveal()}'")  # it would be found
    found = {
        str(path.relative_to(ROOT))
        for path in published()
        if secrets_in(path.read_text("utf-8", "replace"))
    }
    assert found == set()


@pytest.mark.capability("S1-45")
async def test_neither_openapi_nor_an_answer_holds_one() -> None:
    async with telling("sqlite://", probe_token="a-token-of-the-monitor-1") as story:
        await story.join()
        await story.log_in()
        answers = [
            await story.client.get("/openapi.json"),
            await story.client.get("/.well-known/jwks.json"),
            await story.me("nobody"),
        ]
        told = "".join(answer.text for answer in answers)
        secret = story.auth.core.secret
        assert secret is not None
        for hidden in (secret.reveal(), "a-token-of-the-monitor-1", PASSWORD):
            assert hidden not in told
        keys = json.loads(answers[1].text)["keys"]
        assert keys
        assert all("d" not in key and "k" not in key for key in keys)
