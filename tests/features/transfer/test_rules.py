"""Users on their way in and out: what is kept, what is refused, and what is announced."""

import contextlib
import csv
import io
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.hashes import FOREIGN, MADE_BY_OTHERS
from tests.told import ADA, EVE, PASSWORD, Story, Work, problem, telling
from watchword import Own, User, Watchword, user_fields
from watchword.crypto.keys import generate_secret
from watchword.features.passwords import Password
from watchword.features.transfer import (
    FIELDS,
    PRESETS,
    CsvFile,
    JsonLines,
    Reading,
    Refusal,
    Row,
    Tally,
    as_csv,
    as_json,
    columns_of,
)
from watchword.features.transfer.arrivals import Arrivals, Refused
from watchword.features.transfer.seen import Seen
from watchword.features.users import UserRegistered, users
from watchword.kernel.address import address_of
from watchword.testing.story import without_limits

HASH = FOREIGN["django pbkdf2_sha256"][1]


@user_fields
class Member(User):
    """A user with fields of every kind."""

    nickname: Annotated[str, Own(read="self", write="self")] = ""
    points: int = 0
    ratio: int | None = None
    since: datetime | None = None
    lasts: timedelta | None = None
    picture: bytes = b""
    tags: tuple[str, ...] = ()
    extra: Mapping[str, Any] | None = None


def reading(own: Iterable[str] = (), **more: Any) -> Reading:
    columns = {name: name for name in (*FIELDS, *own)}
    return Reading(origin="jsonl", columns=columns, **more)


def lines(rows: Iterable[Mapping[str, Any]]) -> JsonLines:
    return JsonLines(io.BytesIO("".join(json.dumps(row) + "\n" for row in rows).encode()))


async def bring_in(
    story: Story, source: Any, how: Reading | None = None, **options: Any
) -> tuple[Tally, list[Refusal]]:
    tally, refusals = Tally(), list[Refusal]()
    async for step in story.auth.transfer.bring_in(
        source, reading=how or reading(), tally=tally, **options
    ):
        refusals.extend(step.refusals)
    return tally, refusals


async def reasons(story: Story, rows: Iterable[Mapping[str, Any]], **more: Any) -> list[str]:
    _, refusals = await bring_in(story, lines(rows), **more)
    return [refusal.reason for refusal in refusals]


@pytest.mark.capability("DEF-22", "S2-02")
async def test_what_a_user_was_they_stay(database_url: str) -> None:
    row = {
        "id": 42,
        "email": "Ada@Example.COM",
        "password_hash": HASH,
        "username": "Ada L.",
        "is_verified": True,
        "created_at": "2019-05-04T12:00:00+02:00",
        "roles": ["editor"],
        "is_superuser": True,
        "user_settings": {"theme": "dark", "deep": {"er": [1]}},
    }
    async with telling(database_url) as story:
        tally, _ = await bring_in(story, lines([row]))
        assert (tally.read, tally.created, tally.refused.total()) == (1, 1, 0)
        user = await story.auth.users.get("42")
        assert isinstance(user, User)
        assert (user.email, user.email_key) == ("Ada@example.com", ADA)
        assert (user.username, user.is_verified, user.is_active) == ("Ada L.", True, True)
        assert user.created_at == datetime(2019, 5, 4, 10, tzinfo=UTC)
        assert user.roles == ()  # never without being asked for
        assert json.loads(json.dumps(user.user_settings)) == row["user_settings"]
        assert user.epoch > 0
        await story.log_in(password=MADE_BY_OTHERS)


async def test_roles_come_only_when_they_are_asked_for() -> None:
    rows = [
        {"id": 1, "email": ADA, "roles": ["editor", "writer"], "is_superuser": True},
        {"id": 2, "email": EVE, "roles": "editor, writer"},
    ]
    async with telling() as story:
        await bring_in(story, lines(rows), reading(roles=True))
        ada, eve = [await story.auth.users.find(name) for name in (ADA, EVE)]
        assert ada.roles == ("editor", "writer", "admin")
        assert eve.roles == ("editor", "writer")


@pytest.mark.parametrize(("verified", "expected"), [("trust", True), ("none", False)])
async def test_whether_an_address_is_verified_is_the_sources_word_or_yours(
    verified: Literal["trust", "none"], expected: bool
) -> None:
    rows = [{"email": ADA, "is_verified": "true"}, {"email": EVE}]
    async with telling() as story:
        await bring_in(story, lines(rows), reading(verified=verified))
        assert (await story.auth.users.find(ADA)).is_verified is expected
        assert (await story.auth.users.find(EVE)).is_verified is False
        await bring_in(story, lines([{"email": "x@example.com"}]), reading(verified="all"))
        assert (await story.auth.users.find("x@example.com")).is_verified is True


async def test_nobody_gets_mail_and_hooks_hear_of_users_that_others_made(
    database_url: str,
) -> None:
    async with telling(database_url) as story:
        heard: list[UserRegistered] = []

        @story.auth.on(UserRegistered)
        async def hear(event: UserRegistered) -> None:
            heard.append(event)

        await bring_in(story, lines([{"id": 1, "email": ADA, "password_hash": HASH}]))
        await story.mails()
        assert story.outbox.messages == []
        assert [(each.user_id, each.by_themselves) for each in heard] == [("1", False)]


async def test_without_a_password_the_way_in_is_a_reset() -> None:
    async with telling() as story:
        tally, _ = await bring_in(
            story, lines([{"email": ADA, "password_hash": None, "is_verified": True}])
        )
        assert (tally.created, tally.without_password, tally.kinds.total()) == (1, 1, 0)
        body: dict[str, Any] = {"email": ADA, "password": MADE_BY_OTHERS}
        problem(await story.client.post("/auth/login", json=body), 401, "invalid_credentials")
        await story.client.post("/auth/password-reset-request", json={"email": ADA})
        await story.mails()
        body = {"token": story.outbox.token(ADA, "wwp"), "new_password": MADE_BY_OTHERS}
        assert (await story.client.post("/auth/password-reset", json=body)).status_code == 204
        await story.log_in(password=MADE_BY_OTHERS)


async def test_a_disabled_user_stays_out() -> None:
    row = {"email": ADA, "password_hash": HASH, "is_active": 0, "is_verified": 1}
    async with telling() as story:
        await bring_in(story, lines([row]))
        body = {"email": ADA, "password": MADE_BY_OTHERS}
        problem(await story.client.post("/auth/login", json=body), 403, "account_disabled")


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"id": 1}, "no_address"),
    ({"email": ""}, "no_address"),
    ({"email": 5}, "bad_address"),
    ({"email": "a@example.com, b@example.com"}, "bad_address"),
    ({"email": "a\u0000@example.com"}, "bad_address"),
    ({"email": "a\ud800@example.com"}, "bad_address"),
    ({"email": "a" * 300 + "@example.com"}, "bad_address"),
    ({"email": "a..b@example.com"}, "bad_address"),
    ({"email": ADA, "password_hash": MADE_BY_OTHERS}, "unknown_hash"),
    ({"email": ADA, "password_hash": "5f4dcc3b5aa765d61d8327deb882cf99"}, "unknown_hash"),
    ({"email": ADA, "password_hash": "$2b$12$" + "a" * 20_000}, "unknown_hash"),
    ({"email": ADA, "password_hash": 17}, "unknown_hash"),
    ({"email": ADA, "password_hash": "!unusable"}, "unknown_hash"),
    ({"email": ADA, "password_hash": "$2b$31$" + "a" * 53}, "hash_too_dear"),
    ({"email": ADA, "password": MADE_BY_OTHERS}, "plain_password"),
    ({"email": ADA, "id": True}, "bad_id"),
    ({"email": ADA, "id": 1.5}, "bad_id"),
    ({"email": ADA, "id": {"a": 1}}, "bad_id"),
    ({"email": ADA, "id": "a\nb"}, "bad_id"),
    ({"email": ADA, "id": "x" * 256}, "bad_id"),
    ({"email": ADA, "id": "\ud800"}, "bad_id"),
    ({"email": ADA, "username": "a\u0000b"}, "bad_field"),
    ({"email": ADA, "username": "x" * 129}, "bad_field"),
    ({"email": ADA, "username": ["x"]}, "bad_field"),
    ({"email": ADA, "is_verified": "perhaps"}, "bad_field"),
    ({"email": ADA, "is_active": 2}, "bad_field"),
    ({"email": ADA, "created_at": "yesterday"}, "bad_field"),
    ({"email": ADA, "created_at": 10**30}, "bad_field"),
    ({"email": ADA, "created_at": "9999-12-31T23:59:59-23:59"}, "bad_field"),
    ({"email": ADA, "user_settings": [1]}, "bad_field"),
    ({"email": ADA, "user_settings": {"a": "x" * 20_000}}, "bad_field"),
    ({"email": ADA, "user_settings": {"a": "\ud800"}}, "bad_field"),
]


@pytest.mark.parametrize(("row", "reason"), REFUSED, ids=[f"{i}" for i in range(len(REFUSED))])
async def test_what_cannot_be_is_refused_alone(row: dict[str, Any], reason: str) -> None:
    other = {"email": EVE, "password_hash": HASH}
    async with telling() as story:
        assert await reasons(story, [row, other]) == [reason]
        assert await story.auth.store.count(User) == 1
        assert await story.auth.users.by_email(EVE) is not None


async def test_roles_that_are_none_are_refused() -> None:
    async with telling() as story:
        for roles in (7, [""], ["a\nb"], "[1]", "[", {"a": 1}):
            row = {"email": ADA, "roles": roles}
            assert await reasons(story, [row], how=reading(roles=True)) == ["bad_field"], roles
        assert await story.auth.store.count(User) == 0


async def test_twice_in_a_source_taken_here_or_here_already(database_url: str) -> None:
    async with telling(database_url) as story:
        await story.auth.users.create(email="taken@example.com", id="mine")
        rows = [
            {"id": 1, "email": ADA},
            {"id": 2, "email": "ADA@example.com"},
            {"id": 1, "email": "other@example.com"},
            {"id": 3, "email": "Taken@example.com"},
            {"id": "mine", "email": "new@example.com"},
            {"id": "mine", "email": "taken@example.com"},
            {"email": "taken@example.com"},
        ]
        tally, refusals = await bring_in(story, lines(rows))
        assert [(each.line, each.reason) for each in refusals] == [
            (2, "duplicate"),
            (3, "duplicate"),
            (4, "email_taken"),
            (5, "id_taken"),
            (6, "duplicate"),  # of lines 4 and 5
            (7, "duplicate"),
        ]
        assert (tally.created, tally.already_there) == (1, 0)
        for row in rows[-2:]:
            tally, _ = await bring_in(story, lines([row]))
            assert (tally.created, tally.already_there, tally.refused.total()) == (0, 1, 0)


async def test_a_second_run_changes_nothing(database_url: str) -> None:
    rows = [{"id": n, "email": f"u{n}@example.com", "password_hash": HASH} for n in range(30)]
    async with telling(database_url) as story:
        await bring_in(story, lines(rows))
        user = await story.auth.users.find("u3@example.com")
        story.move(minutes=1)
        tally, _ = await bring_in(story, lines(rows))
        assert (tally.created, tally.already_there) == (0, 30)
        assert await story.auth.users.find("u3@example.com") == user
        assert await story.auth.store.count(Password) == 30


async def test_a_conflict_may_stop_everything_before_its_batch_is_written() -> None:
    async with telling() as story:
        await story.auth.users.create(email=ADA, id="mine")
        rows = [{"id": n, "email": f"u{n}@example.com"} for n in range(3)]
        rows.append({"id": 9, "email": ADA})
        tally, refusals = await bring_in(story, lines(rows), stop_at_conflict=True)
        assert [each.reason for each in refusals] == ["email_taken"]
        assert tally.created == 0
        assert await story.auth.store.count(User) == 1


async def test_somebody_who_signs_up_meanwhile_costs_nobody_else_their_place(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look-up and the insert an address goes; the rest of the batch comes in."""
    rows = [
        {"id": n, "email": f"u{n}@example.com", "password_hash": HASH, "is_verified": True}
        for n in range(5)
    ]
    async with telling(database_url) as story:
        transfer = story.auth.transfer
        known = type(transfer)._known
        first = True

        async def late(self: Any, arrivals: Any) -> Any:
            nonlocal first
            found = await known(self, arrivals)
            if first:
                first = False
                await story.auth.users.create(email="U2@example.com", id="somebody")
                await story.auth.users.create(email="new@example.com", id="4")
            return found

        monkeypatch.setattr(type(transfer), "_known", late)
        tally, refusals = await bring_in(story, lines(rows))
        assert [(each.line, each.reason) for each in refusals] == [
            (3, "email_taken"),
            (5, "id_taken"),
        ]
        assert tally.created == 3
        assert (await story.auth.users.find("u2@example.com")).id == "somebody"
        assert (await story.auth.users.find("4")).email == "new@example.com"
        await story.log_in("u1@example.com", MADE_BY_OTHERS)
        # Nobody got a password that was brought for another.
        for email in ("u2@example.com", "new@example.com"):
            body = {"email": email, "password": MADE_BY_OTHERS}
            problem(await story.client.post("/auth/login", json=body), 401, "invalid_credentials")


async def test_a_hash_that_a_stopped_run_left_without_its_user_is_replaced(
    database_url: str,
) -> None:
    """Where there are no transactions, that is what a stop between two writes leaves."""
    async with telling(database_url) as story:
        now = story.clock.now()
        left = Password(realm="main", user_id="1", hash="left", set_at=now)
        await story.auth.store.insert(left)
        row = {"id": 1, "email": ADA, "password_hash": HASH, "is_verified": True}
        tally, _ = await bring_in(story, lines([row]))
        assert tally.created == 1
        await story.log_in(password=MADE_BY_OTHERS)


async def test_trying_out_writes_nothing_and_says_what_would_be(database_url: str) -> None:
    rows = [{"id": n, "email": f"u{n}@example.com", "password_hash": HASH} for n in range(3)]
    async with telling(database_url) as story:
        await story.auth.users.create(email="u1@example.com", id="1")
        tally, _ = await bring_in(story, lines(rows), write=False)
        assert (tally.created, tally.already_there) == (2, 1)
        assert await story.auth.store.count(User) == 1
        assert await story.auth.store.count(Password) == 0


@pytest.mark.slow
async def test_trying_out_a_hundred_thousand_asks_twice_a_batch_and_holds_none(
    work: Work, sqlite_url: str
) -> None:
    many = 100_000
    kinds = list(FOREIGN.values())

    def written() -> Iterable[bytes]:
        for n in range(many):
            row = {"id": n, "email": f"u{n}@example.com", "password_hash": kinds[n % len(kinds)][1]}
            yield json.dumps(row).encode() + b"\n"

    async with telling(sqlite_url) as story:
        await story.auth.users.create(email="somebody@example.com")
        with work.watched() as counter:
            tally, _ = await bring_in(story, JsonLines(cast("Any", Stream(written()))), write=False)
        assert (tally.read, tally.created) == (many, many)
        assert tally.kinds.total() == many
        assert set(tally.kinds) == {kind for kind, _ in kinds}
        batches = many // story.auth.transfer.settings.batch
        assert counter["find User"] == 2 * batches + 1  # and one: is there anybody at all?
        assert counter["run"] == 0  # nothing is hashed
        assert not {name for name in counter if "insert" in name or "transaction" in name}


class Stream(io.RawIOBase):
    """A file that is made while it is read: what was read is gone."""

    def __init__(self, parts: Iterable[bytes]) -> None:
        self._parts = iter(parts)
        self._left = b""

    def readline(self, size: int | None = -1, /) -> bytes:
        left, self._left = self._left, b""
        return left or next(self._parts, b"")

    def read(self, size: int = -1, /) -> bytes:
        self._left = next(self._parts, b"")
        return self._left[:size]

    def seek(self, offset: int, whence: int = 0, /) -> int:
        assert offset == 0
        return 0


OWN = tuple(
    name for name in ("nickname", "points", "ratio", "since", "lasts", "picture", "tags", "extra")
)
MEMBERS: list[dict[str, Any]] = [
    {
        "nickname": "=SUM(A1)",
        "points": -7,
        "since": datetime(2020, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
        "lasts": timedelta(days=3, microseconds=17),
        "picture": bytes(range(256)),
        "tags": ("a", "ü", "x,y"),
        "extra": {"a": [1, None, {"b": 2.5}]},
    },
    {"nickname": "'quoted", "ratio": 2**62},
    {"nickname": '\'+1\t"x"\nnew', "tags": ()},
    {},
]


@pytest.mark.parametrize("form", ["jsonl", "csv"])
async def test_what_goes_out_comes_in_again(form: Literal["jsonl", "csv"], sqlite_url: str) -> None:
    def features() -> Any:
        return [*(each for each in without_limits() if each.name != "users"), users(Member)]

    async with telling(features=features()) as story:
        for n, own in enumerate(MEMBERS):
            await story.auth.users.create(
                email=f"+u{n}@example.com",
                username="@name" if n else None,
                roles=("r",) * (n % 2),
                user_settings={"n": n},
                is_verified=n % 2 == 0,
                **own,
            )
            story.move(seconds=1)
        await story.auth.users.disable((await story.auth.users.find("+u1@example.com")).id)
        for n in (0, 2):
            user = await story.auth.users.find(f"+u{n}@example.com")
            await story.auth.passwords.set(user.id, MADE_BY_OTHERS)
        columns = columns_of(Member, hashes=True)
        text = ",".join(columns) + "\n" if form == "csv" else ""
        async for page in story.auth.transfer.give_out(hashes=True):
            text += "".join(
                as_json(each) if form == "jsonl" else as_csv(each, columns) for each in page
            )
        before = (await story.auth.users.page()).items
        hashes = {user.id: await story.auth.store.get(Password, user_id=user.id) for user in before}
    if form == "csv":
        cells = [cell for line in csv.reader(io.StringIO(text)) for cell in line if cell]
        assert len(cells) > 40
        assert not [cell for cell in cells if cell[0] in "=+-@\t\r"]
    async with telling(sqlite_url, features=features()) as story:
        file = io.BytesIO(text.encode())
        source = JsonLines(file) if form == "jsonl" else CsvFile(file)
        tally, refusals = await bring_in(story, source, reading(OWN, roles=True))
        assert refusals == []
        assert (tally.created, tally.without_password) == (4, 2)
        after = (await story.auth.users.page()).items
        assert [plain(user) for user in after] == [plain(user) for user in before]
        for user in after:
            stored, was = await story.auth.store.get(Password, user_id=user.id), hashes[user.id]
            assert (stored and stored.hash) == (was and was.hash)
        await story.log_in("+u0@example.com", MADE_BY_OTHERS)


def plain(user: User) -> dict[str, Any]:
    own = {name: getattr(user, name) for name in OWN}
    kept = ("id", "email", "email_key", "username", "roles", "is_verified", "is_active")
    fields = {name: getattr(user, name) for name in (*kept, "created_at", "user_settings")}
    return json.loads(json.dumps({**fields, **own}, default=repr))


async def test_hashes_stay_unless_they_are_asked_for() -> None:
    async with telling() as story:
        await story.join()
        async for page in story.auth.transfer.give_out():
            assert "argon2" not in json.dumps(page)
            assert "password_hash" not in page[0]


async def test_own_fields_are_held_to_what_a_database_holds() -> None:
    features = [*(each for each in without_limits() if each.name != "users"), users(Member)]
    bad: list[dict[str, Any]] = [
        {"points": 2**63},
        {"points": "many"},
        {"nickname": "a\u0000b"},
        {"nickname": "\ud800"},
        {"since": "soon"},
        {"lasts": "P99999999D"},
        {"picture": "no base64!"},
        {"tags": "{"},
        {"extra": "[1]"},
    ]
    async with telling(features=features) as story:
        for own in bad:
            tally, refusals = await bring_in(story, lines([{"email": ADA, **own}]), reading(OWN))
            assert [(each.reason, each.field) for each in refusals] == [("bad_field", *own)]
            assert tally.created == 0
        row = {"email": ADA, "points": "17", "since": "2020-01-01 00:00:00", "lasts": "PT5M"}
        tally, _ = await bring_in(story, lines([row]), reading(OWN))
        member: Any = await story.auth.users.find(ADA)
        assert (member.points, member.lasts) == (17, timedelta(minutes=5))
        assert member.since == datetime(2020, 1, 1, tzinfo=UTC)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(values=st.dictionaries(st.sampled_from((*FIELDS, *OWN)), JSON), good=st.booleans())
def test_no_row_makes_the_reader_raise_anything_but_a_refusal(
    values: dict[str, Any], good: bool
) -> None:
    read = Arrivals(MEMBERS_APP.users, reading(OWN, roles=True))
    row = Row(line=1, values={**values, "email": ADA} if good else values, place=1)
    try:
        arrival = read.read(row)
    except Refused:
        return
    # What is accepted, any database holds.
    names = [arrival.user.id, arrival.user.username or "", *arrival.user.roles]
    assert "\x00" not in "".join(names)
    "".join(names).encode()
    for kept in (arrival.user.user_settings, *(getattr(arrival.user, name) for name in OWN)):
        text = repr(kept)
        assert "\\ud8" not in text


MEMBERS_APP = Watchword(
    "sqlite://", user=Member, environment="development", secret=generate_secret(), environ={}
)


@given(
    local=st.from_regex(r"[A-Za-z0-9_+.\-@ ]{0,70}", fullmatch=True) | st.text(max_size=10),
    domain=st.sampled_from(
        ["example.com", "EXAMPLE.com", "bücher.example", "", "localhost", "a..b", "x" * 250]
    ),
)
def test_an_address_reads_as_anywhere_else(local: str, domain: str) -> None:
    text = f"{local}@{domain}".strip()
    try:
        expected: Any = address_of(text)
    except (ValueError, UnicodeError):
        expected = None
    found = None
    with contextlib.suppress(Refused):
        found = ADDRESSES.read(text)
    assert found == expected


ADDRESSES = Arrivals(MEMBERS_APP.users, reading())._addresses


@given(texts=st.lists(st.text(max_size=3)))
def test_what_was_seen_is_known_and_nothing_else(texts: list[str]) -> None:
    seen, known = Seen(), set[str]()
    for text in texts:
        assert (text in seen) == (text in known)
        assert seen.add(text) == (text not in known)
        known.add(text)


def test_what_was_seen_stays_small_and_true_when_it_is_much() -> None:
    seen = Seen()
    for number in range(50_000):
        assert seen.add(str(number))
    assert all(str(number) in seen for number in range(50_000))
    assert not any(f"x{number}" in seen for number in range(50_000))
    assert len(seen._slots) * 8 <= 50_000 * 32


def test_the_usual_tables_fill_fields_that_there_are() -> None:
    for columns in PRESETS.values():
        assert set(columns) <= set(FIELDS)


async def test_an_address_that_its_owner_may_take_back_is_kept_for_them(database_url: str) -> None:
    """After a change of address the old one is not free for as long as it can be undone."""
    async with telling(database_url) as story:
        await story.join()
        tokens = await story.log_in()
        headers = {"Authorization": f"Bearer {tokens['access_token']}"}
        body = {"new_email": "new@example.com", "current_password": PASSWORD}
        await story.client.post("/auth/email/change", json=body, headers=headers)
        await story.mails()
        token = {"token": story.outbox.token("new@example.com", "wwe")}
        answer = await story.client.post("/auth/email/confirm", json=token, headers=headers)
        assert answer.status_code == 204
        rows = [
            {"id": 1, "email": ADA, "password_hash": HASH},
            {"id": 2, "email": EVE, "password_hash": HASH},
        ]
        tally, refusals = await bring_in(story, lines(rows))
        assert [(each.line, each.reason) for each in refusals] == [(1, "email_taken")]
        assert tally.created == 1
        assert await story.auth.users.get("1") is None
        assert await story.auth.store.get(Password, user_id="1") is None
