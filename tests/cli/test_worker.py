"""`watchword worker`: the background work in a process of its own."""

import re
import signal
import subprocess
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.command import PASSWORD, WATCHWORD, Folder, Running, clean
from watchword.crypto.keys import generate_secret

pytestmark = pytest.mark.slow

ADA = {"email": "ada@example.org", "password": PASSWORD}
SITE = "https://accounts.example.com"
SERVE = ("serve", "--port", "0", "--data", "things")
WORKER = ("worker", "--data", "things")


@contextmanager
def at_work(folder: Folder, *arguments: str) -> Generator[Running]:
    """A worker that said that it works; ended afterwards."""
    log = folder.path / f"worker-{time.monotonic_ns()}"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [WATCHWORD, *(arguments or WORKER)],
            cwd=folder.path,
            env=clean(folder.environ),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        worker = Running(process=process, log=log)
        try:
            until = time.monotonic() + 60
            while "Ctrl-C ends it" not in worker.said():
                assert process.poll() is None, worker.said()
                assert time.monotonic() < until, worker.said()
                time.sleep(0.05)
            yield worker
        finally:
            worker.end()


def mails_in(mail: Path, *, at_least: int) -> Sequence[Path]:
    """What was sent, once there is that much."""
    until = time.monotonic() + 30
    while len(found := sorted(mail.glob("*.eml"))) < at_least:
        assert time.monotonic() < until, found
        time.sleep(0.05)
    return found


@pytest.mark.invariant("I-12")
def test_it_sends_what_web_processes_queued_and_they_do_not(
    tmp_path: Path, database_url: str
) -> None:
    mail = tmp_path / "mail"
    environ = {
        "WATCHWORD_ENVIRONMENT": "development",
        "WATCHWORD_DATABASE": database_url,
        "WATCHWORD_MAIL": f"file:{mail}",
    }
    folder = Folder(path=tmp_path, environ=environ)
    with folder.running(*SERVE, WATCHWORD_BACKGROUND="false") as web, web.client() as client:
        assert client.post("/auth/register", json=ADA).status_code == 201
        time.sleep(2.5)  # two turns of who would send it
        assert not list(mail.glob("*.eml"))
        with at_work(folder) as worker:
            (first,) = mails_in(mail, at_least=1)
            body = {"email": ADA["email"]}
            assert client.post("/auth/password-reset-request", json=body).status_code == 202
            second = next(each for each in mails_in(mail, at_least=2) if each != first)
            assert worker.end() == 0
        found = re.search(r"wwp_[\w-]+", second.read_text("utf-8"))
        assert found, second.read_text("utf-8")
        reset = {"token": found[0], "new_password": "another fine horse battery"}
        assert client.post("/auth/password-reset", json=reset).status_code == 204
        assert len(list(mail.glob("*.eml"))) == 2  # each once


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["term", "int"])
def test_it_says_what_it_does_and_a_signal_ends_it(tmp_path: Path, number: signal.Signals) -> None:
    folder = Folder(path=tmp_path, environ={"WATCHWORD_PUBLIC_URL": SITE})
    with at_work(folder) as worker:
        line = next(line for line in worker.said().splitlines() if "Working on" in line)
        assert "things/watchword.db" in line
        for job in ("outbox", "tidy", "unfinished users"):
            assert job in line
        worker.process.send_signal(number)
        assert worker.end() == 0
        assert "Traceback" not in worker.said()


@pytest.mark.invariant("I-24")
def test_of_two_one_sends_and_the_other_takes_over(tmp_path: Path) -> None:
    mail = tmp_path / "mail"
    environ = {"WATCHWORD_ENVIRONMENT": "development", "WATCHWORD_MAIL": f"file:{mail}"}
    folder = Folder(path=tmp_path, environ=environ)
    with (
        folder.running(*SERVE, WATCHWORD_BACKGROUND="false") as web,
        web.client() as client,
        at_work(folder) as first,  # it asked first, so the work is its
        at_work(folder),
    ):
        assert client.post("/auth/register", json=ADA).status_code == 201
        mails_in(mail, at_least=1)
        assert first.end() == 0
        body = {"email": ADA["email"]}
        assert client.post("/auth/password-reset-request", json=body).status_code == 202
        assert len(mails_in(mail, at_least=2)) == 2


def test_without_its_database_it_says_so(folder: Folder) -> None:
    done = folder.script(
        *WORKER,
        WATCHWORD_DATABASE="postgresql://u:hunter2@127.0.0.1:1/none",
        WATCHWORD_SECRET=generate_secret().reveal(),
        WATCHWORD_PUBLIC_URL=SITE,
    )
    assert done.returncode == 1, done.stderr
    assert "store_unavailable" in done.stderr
    assert "Traceback" not in done.stderr
    assert "hunter2" not in done.stderr


def test_what_is_missing_is_said(folder: Folder) -> None:
    elsewhere = {"WATCHWORD_DATABASE": "postgresql://u@127.0.0.1:1/none"}
    done = folder.run(*WORKER, **elsewhere)
    assert done.returncode == 2, done.stderr
    assert "WATCHWORD_SECRET" in done.stderr
    assert "WATCHWORD_PUBLIC_URL" in done.stderr  # it writes links to there
    assert "Traceback" not in done.stderr
    done = folder.run("worker", "--app", "nowhere:app")
    assert done.returncode == 2, done.stderr
    assert "nowhere" in done.stderr


def test_it_works_for_an_app_of_ones_own(folder: Folder) -> None:
    (folder.path / "mine.py").write_text(
        "from fastapi import FastAPI\n"
        "from watchword import Watchword\n"
        "app = FastAPI()\n"
        "Watchword('sqlite:///mine.db', environment='development').install(app)\n"
    )
    with at_work(folder, "worker", "--app", "mine:app") as worker:
        assert "mine.db" in worker.said()
        assert worker.end() == 0
