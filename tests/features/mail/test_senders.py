"""Ways to leave: SMTP over TLS, files, the console; and settings that are refused."""

import asyncio
import logging
import stat
from datetime import timedelta
from email import message_from_bytes, policy
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
from pydantic import ValidationError

from tests.features.mail.conftest import (
    CANARY,
    Authority,
    Kept,
    Letters,
    Outbox,
    Serve,
    ask,
    rows,
)
from watchword.app import App
from watchword.crypto.keys import generate_secret
from watchword.features.mail import EmailSender, Mail, MailSettings, Message, SendFailed, mail
from watchword.features.mail.errors import AddressRefused
from watchword.features.mail.senders import sender_for
from watchword.features.mail.settings import parse_mail_url
from watchword.features.mail.wire import to_bytes
from watchword.kernel.errors import ConfigurationError
from watchword.kernel.feature import Feature
from watchword.kernel.ports import MailPurpose, Postbox
from watchword.kernel.secrets import Secret
from watchword.kernel.tracing import OFF
from watchword.testing.clock import MovableClock

PASSWORD = "p@ss:w/rd"


def message(**changes: Any) -> Message:
    given: dict[str, Any] = {
        "recipient": "ada@example.org",
        "subject": "Grüße",
        "text": "open https://app.example/verify?token=" + "t" * 60 + "\n",
        "html": "<p>open</p>\n",
        "sender": "no-reply@app.example",
        "sender_name": "App, the",
    }
    return Message(**{**given, **changes})


def sender(clock: MovableClock, *, environment: str = "production", **settings: Any) -> EmailSender:
    made = sender_for(MailSettings(**settings), environment=environment, clock=clock)
    assert made is not None
    return made


def smtp(port: int, ca: Path | None, *, scheme: str = "smtp", user: str = "") -> str:
    trusting = "" if ca is None else f"?ca={quote(str(ca))}"
    return f"{scheme}://{user}127.0.0.1:{port}{trusting}"


# SMTP


@pytest.mark.capability("S2-29")
async def test_a_multipart_mail_arrives_over_starttls(
    serve: Serve, authority: Authority, clock: MovableClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with serve(starttls=authority.server_context(), login=True) as sink:
        url = smtp(sink.port, authority.file, user=f"app:{quote(PASSWORD, safe='')}@")
        await sender(clock, url=url).send(message())
    (arrived,) = sink.mails
    (envelope,) = sink.envelopes
    assert envelope == ("no-reply@app.example", ["ada@example.org"], True)
    assert sink.logins == [(b"app", PASSWORD.encode())]
    assert arrived["To"] == "ada@example.org"
    assert arrived["From"] == '"App, the" <no-reply@app.example>'
    assert arrived["Subject"] == "Grüße"
    assert arrived["Auto-Submitted"] == "auto-generated"
    assert arrived.get_content_type() == "multipart/alternative"
    kinds = [part.get_content_type() for part in arrived.iter_parts()]
    assert kinds == ["text/plain", "text/html"]
    assert PASSWORD not in caplog.text


@pytest.mark.capability("S2-29")
async def test_a_mail_arrives_over_implicit_tls(
    serve: Serve, authority: Authority, clock: MovableClock
) -> None:
    async with serve(implicit=authority.server_context()) as sink:
        await sender(clock, url=smtp(sink.port, authority.file, scheme="smtps")).send(message())
    assert len(sink.mails) == 1


@pytest.mark.capability("S2-29")
@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
async def test_a_certificate_of_an_unknown_authority_is_refused(
    serve: Serve, authority: Authority, clock: MovableClock, tmp_path: Path, scheme: str
) -> None:
    context = Authority(tmp_path / "other").server_context()
    tls = {"starttls": context} if scheme == "smtp" else {"implicit": context}
    async with serve(**tls) as sink:
        for ca in (authority.file, None):
            with pytest.raises(SendFailed) as failed:
                await sender(clock, url=smtp(sink.port, ca, scheme=scheme)).send(message())
            assert failed.value.permanent is False
    assert sink.mails == []


@pytest.mark.capability("S2-29")
@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
async def test_a_certificate_of_another_host_is_refused(
    serve: Serve, authority: Authority, clock: MovableClock, scheme: str
) -> None:
    context = authority.server_context("mail.example")
    tls = {"starttls": context} if scheme == "smtp" else {"implicit": context}
    async with serve(**tls) as sink:
        with pytest.raises(SendFailed):
            await sender(clock, url=smtp(sink.port, authority.file, scheme=scheme)).send(message())
    assert sink.mails == []


@pytest.mark.capability("S2-29")
async def test_a_server_without_starttls_gets_neither_mail_nor_password(
    serve: Serve, authority: Authority, clock: MovableClock
) -> None:
    async with serve() as sink:
        url = smtp(sink.port, authority.file, user="app:pw@")
        with pytest.raises(SendFailed) as failed:
            await sender(clock, url=url).send(message())
    assert failed.value.permanent is False
    assert (sink.mails, sink.logins) == ([], [])


async def test_a_wrong_password_is_our_fault_and_not_the_mails(
    serve: Serve, authority: Authority, clock: MovableClock
) -> None:
    async with serve(starttls=authority.server_context(), login=True) as sink:
        url = smtp(sink.port, authority.file, user="app@")
        with pytest.raises(SendFailed) as failed:
            await sender(clock, url=url, password="wrong").send(message())
    assert failed.value.permanent is False
    assert "535" in failed.value.note


@pytest.mark.parametrize(
    ("where", "answer", "permanent"),
    [
        ("rcpt", "550 no such user", True),
        ("rcpt", "450 mailbox busy", False),
        ("data", "554 spam", True),
        ("data", "451 try later", False),
    ],
)
async def test_only_a_5xx_about_this_mail_is_final(
    serve: Serve, clock: MovableClock, where: str, answer: str, permanent: bool
) -> None:
    async with serve() as sink:
        setattr(sink, f"say_to_{where}", answer)
        with pytest.raises(SendFailed) as failed:
            await sender(clock, url=smtp(sink.port, None, scheme="smtp+plain")).send(message())
    assert failed.value.permanent is permanent
    assert answer[:3] in failed.value.note
    assert answer[4:] not in str(failed.value), "a server's words may hold an address"


@pytest.mark.capability("S2-29")
async def test_a_mail_waits_for_a_server_that_is_down(
    serve: Serve, authority: Authority, clock: MovableClock, outbox: Outbox
) -> None:
    async with serve() as gone:
        port = gone.port
    post = outbox(sender(clock, url=smtp(port, authority.file)))
    await ask(post)
    for _ in range(3):
        await post.deliver_due()
        assert await rows(post) == 1
        clock.advance(timedelta(minutes=1))
    async with serve(starttls=authority.server_context(), port=port) as sink:
        await post.deliver_due()
    assert [mail["To"] for mail in sink.mails] == ["ada@example.org"]
    assert await rows(post) == 0


@pytest.mark.capability("S2-29")
async def test_a_refused_recipient_becomes_a_dead_letter(
    serve: Serve, clock: MovableClock, outbox: Outbox
) -> None:
    async with serve() as sink:
        sink.say_to_rcpt = "550 <ada@example.org> is unknown"
        post = outbox(sender(clock, url=smtp(sink.port, None, scheme="smtp+plain")))
        await ask(post)
        await post.deliver_due()
    (dead,) = (await post.undeliverable()).items
    assert dead.last_error == "SMTPRecipientsRefused"


async def test_a_server_that_says_nothing_is_left_in_time(clock: MovableClock) -> None:
    open_end = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await open_end.wait()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        slow = sender(clock, url=smtp(port, None, scheme="smtp+plain"), timeout="1s")
        with pytest.raises(SendFailed):
            await asyncio.wait_for(slow.send(message()), 10)
    finally:
        open_end.set()
        server.close()
        await asyncio.sleep(0.02)


async def test_a_local_part_of_another_script_arrives(serve: Serve, clock: MovableClock) -> None:
    async with serve() as sink:
        plain = sender(clock, url=smtp(sink.port, None, scheme="smtp+plain"))
        await plain.send(message(recipient="jürgen@straße.example"))
    assert sink.envelopes[0][1] == ["jürgen@xn--strae-oqa.example"]


# What a mail looks like


@pytest.mark.standard("CVE 33")
@pytest.mark.parametrize("field", ["recipient", "sender"])
@pytest.mark.parametrize(
    "forged",
    ["a@x.example\r\nBcc: b@y.example", "a@x.example,b@y.example", "a@x.example\x00", "A <a@x.de>"],
)
def test_no_header_can_be_forged_through_an_address(
    clock: MovableClock, field: str, forged: str
) -> None:
    with pytest.raises(AddressRefused):
        to_bytes(message(**{field: forged}), clock=clock)


@pytest.mark.standard("CVE 33")
def test_no_header_can_be_forged_through_a_subject(clock: MovableClock) -> None:
    with pytest.raises(ValueError, match=r"linefeed|newline"):
        to_bytes(message(subject="Hello\r\nBcc: b@y.example"), clock=clock)


def test_a_link_in_plain_ascii_stays_in_one_piece(clock: MovableClock) -> None:
    raw = to_bytes(message(), clock=clock)
    assert b"https://app.example/verify?token=" + b"t" * 60 + b"\r\n" in raw


def test_umlauts_and_long_lines_survive(clock: MovableClock) -> None:
    body = "zur Tür: https://app.example/" + "x" * 2000 + "\n"
    parsed = message_from_bytes(to_bytes(message(text=body), clock=clock), policy=policy.default)
    text = parsed.get_body(("plain",))
    assert text is not None
    assert text.get_content().splitlines() == body.splitlines()
    assert max(map(len, to_bytes(message(text=body), clock=clock).splitlines())) < 998


# Files and the console


@pytest.mark.capability("S2-28")
async def test_every_mail_becomes_a_file_that_only_we_can_read(
    clock: MovableClock, tmp_path: Path
) -> None:
    folder = tmp_path / "mail"
    files = sender(clock, environment="development", url=f"file:{folder}")
    for n in range(12):
        await files.send(message(recipient=f"user{n}@example.org"))
        if n % 3 == 2:
            clock.advance(timedelta(seconds=1))
    names = sorted(path.name for path in folder.iterdir())
    assert len(names) == 12
    assert all(name.endswith(".eml") and not name.startswith(".") for name in names)
    recipients = [
        message_from_bytes((folder / name).read_bytes(), policy=policy.default)["To"]
        for name in names
    ]
    assert recipients == [f"user{n}@example.org" for n in range(12)], "names sort by time"
    assert {stat.S_IMODE((folder / name).stat().st_mode) for name in names} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


async def test_a_file_that_cannot_be_written_is_tried_again(
    clock: MovableClock, tmp_path: Path
) -> None:
    files = sender(clock, environment="development", url=f"file:{tmp_path / 'mail'}")
    (tmp_path / "mail").rmdir()
    (tmp_path / "mail").write_text("in the way")
    with pytest.raises(SendFailed) as failed:
        await files.send(message())
    assert failed.value.permanent is False


async def test_development_prints_mail_to_stderr_unless_told_otherwise(
    clock: MovableClock, capsys: pytest.CaptureFixture[str]
) -> None:
    await sender(clock, environment="development").send(message())
    said = capsys.readouterr()
    assert "ada@example.org" in said.err
    assert "token=" in said.err
    assert said.out == ""


@pytest.mark.invariant("I-12")
@pytest.mark.parametrize("url", ["console:", "file:mail"])
def test_production_refuses_readable_mail_unless_allowed(
    clock: MovableClock, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=r"mail\.allow_plain=true"):
        sender_for(MailSettings.model_validate({"url": url}), environment="production", clock=clock)
    assert list(tmp_path.iterdir()) == []
    settings = MailSettings.model_validate({"url": url, "allow_plain": True})
    assert sender_for(settings, environment="production", clock=clock) is not None


@pytest.mark.capability("S2-30")
def test_production_without_an_address_has_no_mail(clock: MovableClock) -> None:
    assert sender_for(MailSettings(), environment="production", clock=clock) is None


def test_an_authority_that_cannot_be_read_stops_the_start(
    clock: MovableClock, tmp_path: Path
) -> None:
    (tmp_path / "bad.pem").write_text("nothing")
    for name in ("bad.pem", "missing.pem"):
        with pytest.raises(ConfigurationError, match="ca="):
            sender(clock, url=f"smtp://mail.example?ca={tmp_path / name}")


# Settings


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("console:", "console:"),
        ("file:./mail", "file:mail"),
        ("file:///var/mail", "file:/var/mail"),
        ("smtp://mail.example", "smtp://mail.example:587"),
        ("smtps://mail.example", "smtps://mail.example:465"),
        ("smtp://app:secret@mail.example:2525", "smtp://app:***@mail.example:2525"),
        ("smtp+plain://localhost:1025", "smtp+plain://localhost:1025"),
        ("smtp+plain://[::1]", "smtp+plain://[::1]:25"),
        ("smtps://mail.example?ca=/etc/ca.pem", "smtps://mail.example:465?ca=/etc/ca.pem"),
    ],
)
def test_addresses_are_read_and_shown_without_the_password(url: str, shown: str) -> None:
    settings = MailSettings.model_validate({"url": url})
    assert str(settings.url) == shown
    assert settings.model_dump(mode="json")["url"] == shown
    assert "secret" not in repr(settings)


@pytest.mark.parametrize(
    "url",
    [
        "mail.example",
        "http://mail.example",
        "smtp://",
        "smtp:mail.example",
        "smtp://mail.example/path",
        "smtp://app:sec#ret@mail.example",
        "smtp://:secret@mail.example",
        "smtp://mail.example:port",
        "smtp://mail.example:99999",
        "smtp://mail.example?verify=no",
        "smtp://mail.example?ca=",
        "smtp://[::1",
        "smtp+plain://mail.example",
        "smtp+plain://192.0.2.1",
        "file:",
        "file://host/dir",
        "",
    ],
)
def test_addresses_that_cannot_be_used_are_refused_without_repeating_them(url: str) -> None:
    with pytest.raises(ValidationError) as refused:
        MailSettings.model_validate({"url": url})
    assert "secret" not in str(refused.value)
    assert "sec#ret" not in str(refused.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"url": "smtp://app:one@mail.example", "password": "two"},
        {"url": "smtp://app@mail.example"},
        {"password": "alone"},
        {"sender_address": "a@x.example,b@y.example"},
        {"sender_address": "App <a@x.example>"},
        {"sender_name": "App\r\nBcc: b@y.example"},
        {"timeout": "60s"},
        {"retry_for": 3600},
        {"attempts": 0},
        {"unknown": 1},
    ],
)
def test_settings_that_contradict_themselves_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        MailSettings.model_validate(settings)


# The feature


def wiring(clock: MovableClock, *, public_url: str, **settings: Any) -> Any:
    def every(port: type) -> list[Any]:
        assert port is MailPurpose
        return []

    return SimpleNamespace(
        settings=MailSettings(**settings),
        core=SimpleNamespace(environment="production"),
        store=None,
        clock=clock,
        resolved_public_url=public_url,
        tracing=OFF,
        every=every,
    )


@pytest.mark.parametrize(
    ("public_url", "address"),
    [
        ("https://app.example:8443/base", "no-reply@app.example"),
        ("http://127.0.0.1:8000", "no-reply@localhost"),
        ("http://[::1]:8000", "no-reply@localhost"),
    ],
)
def test_the_senders_address_follows_the_public_url(
    clock: MovableClock, public_url: str, address: str
) -> None:
    made = mail().service(wiring(clock, public_url=public_url))
    assert made.sender_address == address


@pytest.mark.capability("S2-28")
def test_a_sender_of_ones_own_takes_the_place_of_the_address(clock: MovableClock) -> None:
    own = Kept()
    feature = mail(sender=own, sender_address="hello@app.example", retry_for="2h")
    assert dict(feature.given) == {"sender_address": "hello@app.example", "retry_for": "2h"}
    made = feature.service(wiring(clock, public_url="https://app.example", **feature.given))
    assert isinstance(made, Mail)
    assert made.sender is own
    assert made.sender_address == "hello@app.example"
    made.ensure_available()
    assert feature.offers is not None
    assert feature.offers(made)[Postbox] is made
    assert feature.jobs is not None
    (job,) = feature.jobs(made)
    assert (job.name, job.every) == ("outbox", timedelta(seconds=1))


def test_a_password_may_come_beside_the_address() -> None:
    settings = MailSettings.model_validate({"url": "smtp://app@mail.example", "password": CANARY})
    assert settings.server_password == Secret(CANARY)
    assert CANARY not in repr(settings)
    assert CANARY not in settings.model_dump_json()
    assert parse_mail_url("smtp://app:pw@mail.example").password == Secret("pw")


def test_every_setting_is_documented_with_its_default() -> None:
    page = Path(__file__).parents[3] / "docs" / "features" / "mail.md"
    lines = page.read_text("utf-8").splitlines()
    defaults = MailSettings().model_dump(mode="json")
    for name, default in defaults.items():
        row = next((line for line in lines if line.startswith(f"| `{name}` |")), None)
        assert row is not None, f"{name} is not in the table"
        shown = {None: "unset", "": "empty", False: "`false`"}.get(default, f"`{default}`")
        assert f"| {shown} |" in row, f"{name}: the page does not say {shown}"


def letters_feature(letters: Letters) -> Feature[Letters]:
    """The smallest slice that sends mail."""
    return Feature(
        name="letters",
        service=lambda wiring: letters,
        needs=("mail",),
        offers=lambda service: {MailPurpose: service},
    )


async def test_an_app_delivers_at_once_what_its_features_queue(
    database_url: str, letters: Letters, tmp_path: Path
) -> None:
    folder = tmp_path / "mail"
    app = App(
        database_url,
        features=[letters_feature(letters), mail(sender_name="App")],
        environ={
            "WATCHWORD_MAIL": f"file:{folder}",
            "WATCHWORD_ENVIRONMENT": "development",
            "WATCHWORD_SECRET": generate_secret().reveal(),
            "WATCHWORD_PUBLIC_URL": "http://localhost:8000",
        },
    )
    async with app.running():
        await ask(app.service(Mail))
        async with asyncio.timeout(10):
            while not (arrived := list(folder.glob("*.eml"))):  # noqa: ASYNC110  a file tells nobody
                await asyncio.sleep(0.02)
        (file,) = arrived
        parsed = message_from_bytes(file.read_bytes(), policy=policy.default)
        assert parsed["From"] == "App <no-reply@localhost>"
        assert parsed["To"] == "ada@example.org"


def test_an_app_in_production_does_not_start_with_mail_to_the_console() -> None:
    with pytest.raises(ConfigurationError, match="WATCHWORD_MAIL=smtp"):
        App(
            "sqlite:///unused.db",
            features=[mail()],
            environ={
                "WATCHWORD_MAIL": "console:",
                "WATCHWORD_SECRET": generate_secret().reveal(),
                "WATCHWORD_PUBLIC_URL": "https://app.example",
            },
        )
