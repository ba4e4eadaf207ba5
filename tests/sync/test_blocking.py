"""Synchronous code asks the same services: scripts, threads, `def` handlers."""

import asyncio
import os
import socket
import threading
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, assert_type

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from watchword import CurrentUser, User, Watchword
from watchword.crypto.keys import generate_secret
from watchword.kernel.errors import StoreUnavailable, UserAlreadyExists, UserNotFound
from watchword.storage.store import Page
from watchword.sync import Blocking, NotRunnable, blocking
from watchword.testing import cheap_hashing
from watchword.testing.story import PASSWORD, bearer

pytestmark = pytest.mark.capability("S2-25")


@pytest.fixture(autouse=True)
def cheap() -> Iterator[None]:
    with cheap_hashing():
        yield


def made(url: str) -> Watchword:
    return Watchword(url, environ={}, environment="development", secret=generate_secret())


def test_a_script_makes_and_finds_a_user(database_url: str) -> None:
    auth = made(database_url)
    with blocking(auth) as run:
        user = run(auth.passwords.create_user(email="ada@example.com", password=PASSWORD))
        assert_type(user, User)
        assert run(auth.users.by_email("ADA@example.com")) == user
        assert run(auth.passwords.sign_in(email="ada@example.com", password=PASSWORD)) == user
        page: Page[Any] = run(auth.users.page())
        assert [each.email for each in page.items] == ["ada@example.com"]
    assert not auth.is_started


def test_several_steps_commit_together_or_not_at_all(sqlite_url: str) -> None:
    auth = made(sqlite_url)

    async def two_of_one_address() -> None:
        async with auth.store.transaction() as tx:
            await auth.users.within(tx).create(email="ada@example.com")
            await auth.users.within(tx).create(email="ada@example.com")

    with blocking(auth) as run:
        with pytest.raises(UserAlreadyExists):
            run(two_of_one_address())
        assert run(auth.users.by_email("ada@example.com")) is None


def test_it_raises_what_the_service_raised(sqlite_url: str) -> None:
    auth = made(sqlite_url)
    with blocking(auth) as run:
        with pytest.raises(UserNotFound):
            run(auth.users.find("nobody@example.com"))
        run(auth.users.create(email="ada@example.com"))
        with pytest.raises(UserAlreadyExists) as caught:
            run(auth.users.create(email="ADA@example.com"))
        assert caught.value.code == "user_already_exists"


def test_threads_share_it(sqlite_url: str) -> None:
    auth = made(sqlite_url)
    with blocking(auth) as run, ThreadPoolExecutor(8) as threads:
        names = [f"user{number}@example.com" for number in range(24)]

        def create(name: str) -> User:
            return run(auth.users.create(email=name))

        list(threads.map(create, names))
        found: Page[Any] = run(auth.users.page())
        assert {user.email for user in found.items} == set(names)


def test_it_starts_again_after_its_end(sqlite_url: str) -> None:
    auth = made(sqlite_url)
    with blocking(auth) as run:
        run(auth.users.create(email="ada@example.com"))
    with blocking(auth) as run:
        assert run(auth.users.by_email("ada@example.com")) is not None


def test_no_thread_is_left(sqlite_url: str) -> None:
    with blocking(made(sqlite_url)):
        assert any(thread.name == "watchword blocking" for thread in threading.enumerate())
    assert not any(thread.name == "watchword blocking" for thread in threading.enumerate())


def test_a_start_that_fails_leaves_nothing_running(tmp_path: Any) -> None:
    auth = made(f"sqlite:///{tmp_path}/no/such/folder/app.db")
    with pytest.raises(StoreUnavailable), blocking(auth):
        pass
    assert not any(thread.name == "watchword blocking" for thread in threading.enumerate())


def test_outside_the_block_it_says_what_to_do(sqlite_url: str) -> None:
    auth = made(sqlite_url)
    with pytest.raises(NotRunnable, match="with blocking"):
        blocking(auth)(auth.users.by_email("ada@example.com"))
    with blocking(auth) as run:
        pass
    with pytest.raises(NotRunnable, match="with blocking"):
        run(auth.users.by_email("ada@example.com"))


async def test_on_an_event_loop_it_refuses_instead_of_blocking_it(sqlite_url: str) -> None:
    auth = made(sqlite_url)
    with pytest.raises(NotRunnable, match="await"), blocking(auth):
        pass
    async with auth.running():
        with pytest.raises(NotRunnable, match="await"):
            blocking(auth)(auth.users.by_email("ada@example.com"))


async def never() -> None:
    await asyncio.sleep(3600)


def test_it_waits_no_longer_than_it_is_told(sqlite_url: str) -> None:
    cancelled = threading.Event()

    async def long() -> None:
        try:
            await never()
        finally:
            cancelled.set()

    auth = made(sqlite_url)
    with blocking(auth) as run:
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            run(long(), timeout=0.05)
        assert cancelled.wait(5)
        assert run(auth.users.by_email("ada@example.com")) is None
    assert time.monotonic() - began < 30


def test_who_waits_while_it_ends_is_told(sqlite_url: str) -> None:
    told: list[BaseException] = []

    def wait(run: Blocking) -> None:
        try:
            run(never())
        except NotRunnable as error:
            told.append(error)

    with blocking(made(sqlite_url)) as run:
        thread = threading.Thread(target=wait, args=(run,))
        thread.start()
        time.sleep(0.1)
    thread.join(10)
    assert not thread.is_alive()
    assert len(told) == 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # newer Pythons warn of forking threads
def test_a_forked_child_is_told_instead_of_waiting_for_ever(sqlite_url: str) -> None:
    auth = made(sqlite_url)
    with blocking(auth) as run:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                run(auth.users.by_email("ada@example.com"))
            except NotRunnable:
                code = 0 if auth.loop is None else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert run(auth.users.by_email("ada@example.com")) is None


@contextmanager
def served(app: FastAPI) -> Generator[httpx.Client]:
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on"))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive()
                time.sleep(0.02)
            with httpx.Client(base_url=address, timeout=30) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join(30)


def test_def_handlers_use_the_servers_loop(database_url: str) -> None:
    auth = made(database_url)
    app = FastAPI()
    auth.install(app)
    run = blocking(auth)

    @app.get("/name")
    def name(user: CurrentUser) -> str:
        found = run(auth.users.find(user.id))
        return f"{found.email} on {threading.current_thread() is not threading.main_thread()}"

    @app.get("/wrong")
    async def wrong() -> str:
        try:
            run(auth.users.page())
        except NotRunnable as error:
            return str(error)
        return "blocked"

    with served(app) as client:
        client.post("/auth/register", json={"email": "ada@example.com", "password": PASSWORD})
        login = {"email": "ada@example.com", "password": PASSWORD}
        token = client.post("/auth/login", json=login).json()["access_token"]
        assert client.get("/name", headers=bearer(token)).json() == "ada@example.com on True"
        assert "await the coroutine" in client.get("/wrong").json()
        with ThreadPoolExecutor(8) as threads:
            asked = [threads.submit(client.get, "/name", headers=bearer(token)) for _ in range(32)]
            assert {answer.result().status_code for answer in asked} == {200}
        with run as same:  # entering it there starts nothing
            assert same is run
        names = {thread.name for thread in threading.enumerate()}
        assert "watchword blocking" not in names
