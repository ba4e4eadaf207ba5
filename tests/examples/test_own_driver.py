"""The example of a driver: it keeps the contract, and an App on it works."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.cli.command import Folder, clean
from tests.examples.walking import ROOT, walk
from tests.told import ADA, ANOTHER, problem, telling
from watchword.kernel.errors import ConfigurationError, StoreUnavailable
from watchword.starting import driver_of
from watchword.testing.story import bearer

EXAMPLE = ROOT / "examples" / "own_driver"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example in it, installed from a wheel as its author would make it."""
    wheels = tmp_path_factory.mktemp("wheels")
    build = (*("-m", "hatchling", "build", "--target", "wheel"), "--directory", str(wheels))
    subprocess.run([sys.executable, *build], cwd=EXAMPLE, check=True, capture_output=True)
    (wheel,) = wheels.glob("watchword_jsonfile-*.whl")
    site = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(site)
    return site


@pytest.fixture
def installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is installed here too."""
    monkeypatch.syspath_prepend(str(site))


@pytest.mark.capability("S2-21")
@pytest.mark.invariant("I-05")
def test_it_keeps_the_contract_as_its_readme_says() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"],
        cwd=EXAMPLE,
        env=clean({"PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "80"}),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    counted = re.search(r"=+ (\d+) passed in [^,]*=+$", done.stdout.strip())
    assert counted, done.stdout
    assert int(counted[1]) > 40


@pytest.mark.capability("S2-21")
@pytest.mark.usefixtures("installed")
async def test_an_app_finds_it_and_a_user_goes_the_whole_way(tmp_path: Path) -> None:
    file = tmp_path / "users.json"
    async with telling(f"jsonfile:{file}") as story:
        await story.join()
        pair = await story.log_in()
        used = {"refresh_token": pair["refresh_token"]}
        answer = await story.client.post("/auth/refresh", json=used)
        fresh = answer.raise_for_status().json()
        assert (await story.me(fresh["access_token"])).json()["email"] == ADA
        story.move(seconds=30)
        replayed = await story.client.post("/auth/refresh", json=used)
        problem(replayed, 401, "refresh_token_reused")
        problem(await story.me(fresh["access_token"]), 401, "revoked_token")

        asked = await story.client.post("/auth/password-reset-request", json={"email": ADA})
        assert asked.status_code == 202
        await story.mails()
        reset = {"token": story.outbox.token(ADA, "wwp"), "new_password": ANOTHER}
        assert (await story.client.post("/auth/password-reset", json=reset)).status_code == 204
        again = await story.client.post("/auth/password-reset", json=reset)
        problem(again, 401, "invalid_token")
        token = (await story.log_in(password=ANOTHER))["access_token"]
        out = await story.client.post("/auth/logout", headers=bearer(token))
        assert out.status_code == 204
        problem(await story.me(token), 401, "revoked_token")
    assert file.stat().st_mode & 0o077 == 0
    assert ANOTHER not in file.read_text("utf-8")


@pytest.mark.capability("S2-21")
def test_two_workers_serve_it(site: Path, tmp_path: Path) -> None:
    environ = {
        "WATCHWORD_ENVIRONMENT": "development",
        "WATCHWORD_MAIL": f"file:{tmp_path / 'mail'}",
        "WATCHWORD_DATABASE": "jsonfile:users.json",
        "PYTHONPATH": str(site),
    }
    folder = Folder(path=tmp_path, environ=environ)
    with folder.running("serve", "--port", "0", "--workers", "2") as server:
        done = walk(server.address, tmp_path / "mail")
        assert done.returncode == 0, done.stdout + done.stderr
        assert server.end() == 0


@pytest.mark.usefixtures("installed")
async def test_what_is_no_file_of_its_is_away_and_what_is_no_url_is_refused(tmp_path: Path) -> None:
    for url in ("jsonfile:", "jsonfile://host/users.json", "jsonfile:users.json?mode=ro"):
        with pytest.raises(ConfigurationError, match="jsonfile:PATH"):
            driver_of(url)
    (tmp_path / "users.json").write_text("not JSON")
    for name in ("users.json", "nowhere/users.json"):
        with pytest.raises(StoreUnavailable) as caught:
            await driver_of(f"jsonfile:{tmp_path / name}").open(())
        assert str(tmp_path) not in str(caught.value.note)
