"""`watchword serve`: what it needs, what it refuses, how it ends."""

import asyncio
import contextlib
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.cli.command import PASSWORD, Folder
from watchword import Watchword
from watchword.crypto.keys import generate_secret
from watchword.server import running

pytestmark = pytest.mark.slow

DEVELOPMENT = {"WATCHWORD_ENVIRONMENT": "development"}
SERVE = ("serve", "--port", "0", "--data", "things")
ADA = {"email": "ada@example.org", "password": PASSWORD}


@pytest.mark.invariant("I-22")
def test_the_first_start_needs_nothing_and_keeps_its_secret(folder: Folder) -> None:
    with folder.running(*SERVE) as server, server.client() as client:
        assert client.get("/healthz").json() == {"status": "ok"}
        assert client.get("/readyz").json()["status"] == "ok"
        assert "in production" in server.said()
        assert client.get("/docs").status_code == 404
    secret = folder.path / "things" / "secret"
    assert secret.stat().st_mode & 0o777 == 0o600
    assert secret.parent.stat().st_mode & 0o777 == 0o700
    kept = secret.read_text()
    with folder.running(*SERVE) as server:
        assert kept.strip() not in server.said()
    assert secret.read_text() == kept


def test_in_development_it_prints_where_to_click(folder: Folder) -> None:
    with folder.running(*SERVE, **DEVELOPMENT) as server, server.client() as client:
        assert f"{server.address}/docs" in server.said()
        assert client.get("/docs").status_code == 200
        assert "Nobody is signed in" in client.get("/").text


def test_command_and_server_share_the_folder(folder: Folder) -> None:
    with folder.running(*SERVE) as server, server.client() as client:
        done = folder.run(
            *("users", "create", ADA["email"], "--role", "admin"),
            *("--password-stdin", "--data", "things"),
            stdin=f"{PASSWORD}\n",
        )
        assert done.returncode == 0, done.stderr
        answer = client.post("/auth/login", json=ADA)
        assert answer.status_code == 200, answer.text
        assert answer.json()["user"]["roles"] == ["admin"]
        bearer = {"Authorization": f"Bearer {answer.json()['access_token']}"}
        assert client.get("/auth/me", headers=bearer).status_code == 200
        assert folder.run("users", "disable", ADA["email"], "--data", "things").returncode == 0
        until = time.monotonic() + 10
        while client.get("/auth/me", headers=bearer).status_code == 200:
            assert time.monotonic() < until
            time.sleep(0.2)


def test_workers_share_one_secret_and_one_database(folder: Folder, database_url: str) -> None:
    environ = {**DEVELOPMENT, "WATCHWORD_DATABASE": database_url}
    with folder.running(*SERVE, "--workers", "2", **environ) as server:
        with server.client() as client:
            assert client.post("/auth/register", json=ADA).status_code == 201
            token = client.post("/auth/login", json=ADA).json()["access_token"]

        def ask(_: int) -> int:
            with server.client() as client:  # a connection of its own: any worker may take it
                return client.get(
                    "/auth/me", headers={"Authorization": f"Bearer {token}"}
                ).status_code

        with ThreadPoolExecutor(8) as threads:
            assert set(threads.map(ask, range(40))) == {200}
        assert server.said().count("Started server process") == 2
        assert server.end() == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_request_in_flight_is_finished(folder: Folder, workers: str) -> None:
    slow = {
        **DEVELOPMENT,
        "WATCHWORD_PASSWORDS__ARGON2_TIME_COST": "16",
        "WATCHWORD_PASSWORDS__ARGON2_MEMORY_COST": "524288",
    }
    with folder.running(*SERVE, "--workers", workers, **slow) as server:
        with ThreadPoolExecutor(1) as threads, server.client() as client:
            began = time.monotonic()
            asked = threads.submit(client.post, "/auth/register", json=ADA)
            time.sleep(0.5)
            assert not asked.done()
            server.process.terminate()
            assert asked.result().status_code == 201
            print(f"answered {time.monotonic() - began:.1f} s after it was asked")
        assert server.process.wait(30) in {0, -15}


@pytest.mark.invariant("I-22")
@pytest.mark.parametrize(
    ("arguments", "environ", "said"),
    [
        (("--host", "0.0.0.0"), {}, "WATCHWORD_PUBLIC_URL"),
        ((), {"WATCHWORD_PUBLIC_URL": "http://auth.example.org"}, "must be https"),
        (("--host", "0.0.0.0"), {"WATCHWORD_PUBLIC_URL": "http://localhost"}, "must be https"),
        ((), {"WATCHWORD_PUBLIC_URL": "ftp://auth.example.org"}, "is no http(s) address"),
        ((), {"WATCHWORD_DATABASE": "postgresql://u@h/d"}, "WATCHWORD_SECRET"),
        ((), {"WATCHWORD_DATABASE": "sqlite:///elsewhere.db"}, "WATCHWORD_SECRET"),
        ((), {"WATCHWORD_MAIL": "console:"}, "allow_plain"),
        (
            (),
            {"WATCHWORD_DATABASE": "nosuch://h/d", "WATCHWORD_SECRET": generate_secret().reveal()},
            "nosuch",
        ),
        ((), {"WATCHWORD_SECRET": " "}, "WATCHWORD_SECRET"),
        (("--host", "no.such.host.invalid"), {}, "cannot listen"),
        (("--host", "a..b"), {}, "cannot listen"),
    ],
)
def test_production_does_not_start_unsafely(
    folder: Folder, arguments: tuple[str, ...], environ: dict[str, str], said: str
) -> None:
    done = folder.run(*SERVE, *arguments, **environ)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.invariant("I-22")
@pytest.mark.parametrize(
    "secret",
    [
        "changeme",
        "x" * 64,
        "your-secret-key-change-this-in-production",
        "supersecretkeysupersecretkeysupersecretkey",
        "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
        "wws_" + "A" * 49,
        pytest.param(generate_secret().reveal()[:-1], id="cut"),
    ],
)
def test_a_weak_secret_stops_the_start_with_the_remedy(folder: Folder, secret: str) -> None:
    done = folder.run(*SERVE, WATCHWORD_SECRET=secret)
    assert done.returncode == 2, done.stderr
    assert "watchword secret generate" in done.stderr
    assert secret not in done.stderr


def test_a_generated_secret_starts_production(folder: Folder) -> None:
    secret = folder.script("secret", "generate").stdout.strip()
    environ = {"WATCHWORD_SECRET": secret, "WATCHWORD_DATABASE": "sqlite:///elsewhere.db"}
    with folder.running(*SERVE, **environ) as server:
        assert "in production" in server.said()
    assert not (folder.path / "things" / "secret").exists()


def test_an_address_that_is_taken_is_said(folder: Folder) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = folder.run("serve", "--port", port, "--data", "things")
    assert done.returncode == 2
    assert port in done.stderr


def break_file(folder: Path) -> str:
    (folder / "broken.db").write_bytes(b"this is no database" * 400)
    return "sqlite:///broken.db"


def break_folder(_: Path) -> str:
    return "sqlite:////dev/null/app.db"


def break_server(_: Path) -> str:
    return "postgresql://u:hunter2@127.0.0.1:1/none"


@pytest.mark.capability("DEF-18")
@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("broken", [break_file, break_folder, break_server])
def test_without_its_store_it_does_not_start(
    folder: Folder, broken: Callable[[Path], str], workers: str
) -> None:
    done = folder.script(
        *(*SERVE, "--workers", workers),
        WATCHWORD_DATABASE=broken(folder.path),
        WATCHWORD_SECRET=generate_secret().reveal(),
    )
    assert done.returncode == 1, done.stderr
    assert "store_unavailable" in done.stderr
    assert "Traceback" not in done.stderr
    assert "hunter2" not in done.stderr


@pytest.mark.capability("DEF-18")
def test_an_app_of_ones_own_does_not_start_without_its_store(folder: Folder) -> None:
    (folder.path / "mine.py").write_text(
        "from fastapi import FastAPI\n"
        "from watchword import Watchword\n"
        "app = FastAPI()\n"
        f"Watchword({break_file(folder.path)!r}).install(app)\n"
    )
    done = folder.script("dev", "mine:app", "--no-reload", "--port", "0")
    assert done.returncode != 0


@pytest.mark.capability("S2-33")
@pytest.mark.parametrize("command", [("serve",), ("dev", "hello:app")])
def test_without_the_extra_it_says_what_to_install(
    folder: Folder, command: tuple[str, ...]
) -> None:
    blocked = "import sys; sys.modules['uvicorn'] = None; from watchword.cli import main; main()"
    done = folder.script(*command, command=(sys.executable, "-c", blocked))
    assert done.returncode == 2
    assert 'pip install "watchword[server]"' in done.stderr
    assert "Traceback" not in done.stderr


def test_a_head_without_end_is_cut_off(folder: Folder) -> None:
    with folder.running(*SERVE) as server:
        host, port = server.address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n")
            sent = 0
            with contextlib.suppress(ConnectionError):
                while sent < 64 * 1024 * 1024:
                    sent += connection.send(b"X-Filler: " + b"a" * 4000 + b"\r\n")
        assert sent < 16 * 1024 * 1024
        with server.client() as client:  # long bodies one after the other are fine
            for _ in range(3):
                body = {"email": "a" * 300_000, "password": ""}
                assert client.post("/auth/login", json=body).status_code == 422
            assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_database_sealed_under_another_secret_stops_the_start(
    folder: Folder, workers: str
) -> None:
    url = "sqlite:///app.db"
    own, other = generate_secret().reveal(), generate_secret().reveal()
    with folder.running(*SERVE, WATCHWORD_DATABASE=url, WATCHWORD_SECRET=own):
        pass
    done = folder.script(
        *SERVE, "--workers", workers, WATCHWORD_DATABASE=url, WATCHWORD_SECRET=other
    )
    assert done.returncode == 2, done.stderr
    assert "WATCHWORD_OLD_SECRETS" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Started parent process" not in done.stderr


def test_the_trial_of_the_parent_leaves_nothing_open(tmp_path: Path) -> None:
    auth = Watchword(
        f"sqlite:///{tmp_path / 'app.db'}",
        environ={},
        environment="development",
        secret=generate_secret(),
    )
    before = set(threading.enumerate())
    asyncio.run(running._try(auth))
    assert set(threading.enumerate()) == before
    assert not auth.is_started
    assert [each.name for each in tmp_path.iterdir()] == ["app.db"]  # no -wal: all is closed


def test_workers_that_cannot_start_are_a_failure(folder: Folder) -> None:
    (folder.path / "broken.py").write_text(
        "import watchword.server.running as running\n"
        "from watchword.cli import main\n"
        "async def look_away(_): pass\n"
        "if __name__ == '__main__':\n"
        "    running._try = look_away\n"
        "    main()\n"
    )
    done = folder.script(
        *(*SERVE, "--workers", "2"),
        command=(sys.executable, "broken.py"),
        WATCHWORD_DATABASE=break_folder(folder.path),
        WATCHWORD_SECRET=generate_secret().reveal(),
    )
    assert done.returncode == 1, done.stderr


@pytest.mark.parametrize("name", [".x:app", "x.:app", "__main__.y:app", "a..b:app"])
def test_a_name_that_is_no_module_is_said(folder: Folder, name: str) -> None:
    done = folder.run("dev", name, "--port", "0")
    assert done.returncode == 2
    assert name in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_an_app_of_ones_own_may_listen_everywhere(folder: Folder, host: str) -> None:
    (folder.path / "mine.py").write_text(
        "from fastapi import FastAPI\n"
        "from watchword import Watchword\n"
        "app = FastAPI()\n"
        "Watchword('sqlite://').install(app)\n"
    )
    with folder.running("dev", "mine:app", "--no-reload", "--port", "0", "--host", host) as server:
        assert server.address.startswith("http://localhost:")
    assert (folder.path / ".watchword" / ".gitignore").read_text() == "*\n"


def test_trailers_without_end_are_cut_off(folder: Folder) -> None:
    with folder.running(*SERVE) as server:
        host, port = server.address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(
                b"POST /auth/login HTTP/1.1\r\nHost: localhost\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n0\r\n"
            )
            sent = 0
            with contextlib.suppress(ConnectionError):
                while sent < 64 * 1024 * 1024:
                    sent += connection.send(b"x: y\r\n" * 1000)
        assert sent < 16 * 1024 * 1024
