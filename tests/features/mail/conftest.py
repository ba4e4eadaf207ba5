"""An outbox on every store, letters to send, and SMTP servers that behave as told."""

import asyncio
import itertools
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from watchword.features.mail import EmailSender, Mail, MailSettings, Message, OutboxMail
from watchword.features.mail.events import MailQueued, MailUndeliverable
from watchword.kernel.events import Events
from watchword.kernel.ports import ComposedMail, MailRequest
from watchword.starting import driver_of as open_driver
from watchword.storage.store import Driver, Store
from watchword.testing.clock import MovableClock

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
CANARY = "canary-token-"
PAGES = {
    "letter.subject.txt": "A letter for {{ name }}\n",
    "letter.txt": "Dear {{ name }},\n\nopen {{ link }}\n",
    "letter.html": (
        '{% extends "mail/layout.html" %}{% block body %}<p>Dear {{ name }}, '
        '<a href="{{ link }}">open</a></p>{% endblock %}'
    ),
    "letter.de.txt": "Liebe {{ name }},\n\nzur Tür: {{ link }}\n",
}
_names = itertools.count()


@dataclass
class Letters:
    """A purpose: mints a token a letter, and knows everybody but those at nowhere.example."""

    package: str
    purpose: str = "letter"
    name: str = "Ada"
    minted: list[str] = field(default_factory=list[str])
    asked: list[MailRequest] = field(default_factory=list[MailRequest])

    async def compose(self, request: MailRequest) -> ComposedMail | None:
        self.asked.append(request)
        if request.address.endswith("@nowhere.example"):
            return None
        self.minted.append(f"{CANARY}{len(self.minted)}")
        link = f"https://app.example/verify?token={self.minted[-1]}&then=/"
        return ComposedMail(
            recipient=request.address,
            template="letter",
            package=self.package,
            context={"name": self.name, "link": link},
        )


@dataclass
class Kept:
    """A sender of one's own: keeps what it was given, or raises what it is told to."""

    messages: list[Message] = field(default_factory=list[Message])
    raising: list[Exception] = field(default_factory=list[Exception])

    async def send(self, message: Message) -> None:
        await asyncio.sleep(0)
        if self.raising:
            raise self.raising[0]
        self.messages.append(message)


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock(START)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package with templates, as a slice has them."""
    name = f"letters_{next(_names)}"
    pages = tmp_path / "packages" / name / "pages"
    pages.mkdir(parents=True)
    (pages.parent / "__init__.py").write_text("")
    for file, text in PAGES.items():
        (pages / file).write_text(text, "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    return name


@pytest.fixture
def letters(package: str) -> Letters:
    return Letters(package)


@pytest.fixture
async def driver(database_url: str) -> AsyncIterator[Driver]:
    made = open_driver(database_url)
    await made.open((OutboxMail,))
    yield made
    await made.close()


@pytest.fixture
def store(driver: Driver) -> Store:
    return Store(driver=driver, events=Events(), realm="main")


Outbox = Callable[..., Mail]


@pytest.fixture
def outbox(store: Store, clock: MovableClock, letters: Letters) -> Outbox:
    """Make a Mail: `outbox(sender, attempts=3)`."""

    def make(sender: EmailSender | None, *, on: Store = store, **settings: Any) -> Mail:
        return Mail(
            store=on,
            settings=MailSettings(**settings),
            clock=clock,
            sender=sender,
            sender_address="no-reply@app.example",
            purposes=[letters],
        )

    return make


async def ask(mail: Mail, address: str = "ada@example.org", **options: Any) -> None:
    """Queue a letter, in a transaction of its own."""
    async with mail.store.transaction() as transaction:
        await mail.queue(transaction, purpose="letter", address=address, **options)


async def rows(mail: Mail) -> int:
    return await mail.store.count(OutboxMail)


@pytest.fixture
def announced(store: Store) -> list[Any]:
    """Every event of the outbox, in order, after its commit."""
    events: list[Any] = []

    async def keep(event: Any) -> None:
        events.append(event)

    store.events.on(MailQueued, keep)
    store.events.on(MailUndeliverable, keep)
    return events


# SMTP


@dataclass
class Authority:
    """A certificate authority of the test's own."""

    folder: Path
    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Test CA")])
        usage = x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=True,
            crl_sign=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        certificate = (
            self._begin(self.name, self.key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .sign(self.key, hashes.SHA256())
        )
        self.file = self.folder / "ca.pem"
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def server_context(self, host: str = "127.0.0.1") -> ssl.SSLContext:
        """TLS for a server that this authority says is `host`."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
        try:
            known_as: x509.GeneralName = x509.IPAddress(ip_address(host))
        except ValueError:
            known_as = x509.DNSName(host)
        certificate = (
            self._begin(name, key)
            .add_extension(x509.SubjectAlternativeName([known_as]), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        pem = self.folder / f"{host}.pem"
        pem.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        return context

    def _begin(self, name: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)  # the TLS library asks the machine's clock
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()),
                critical=False,
            )
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
        )


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@dataclass
class Sink:
    """What an SMTP server received, and what it says to the next mail."""

    mails: list[EmailMessage] = field(default_factory=list[EmailMessage])
    envelopes: list[tuple[str, list[str], bool]] = field(
        default_factory=list[tuple[str, list[str], bool]]
    )
    logins: list[tuple[bytes, bytes]] = field(default_factory=list[tuple[bytes, bytes]])
    say_to_rcpt: str | None = None
    say_to_data: str | None = None
    port: int = 0

    async def handle_RCPT(  # noqa: N802  aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.say_to_rcpt is not None:
            return self.say_to_rcpt
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(  # noqa: N802  aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        if self.say_to_data is not None:
            return self.say_to_data
        content = envelope.content
        assert isinstance(content, bytes)
        mail = message_from_bytes(content, policy=policy.default)
        assert isinstance(mail, EmailMessage)
        self.mails.append(mail)
        over_tls = session.ssl is not None
        self.envelopes.append((envelope.mail_from or "", list(envelope.rcpt_tos), over_tls))
        return "250 taken"

    def authenticate(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any
    ) -> AuthResult:
        assert isinstance(data, LoginPassword)
        self.logins.append((data.login, data.password))
        return AuthResult(success=data.password == b"p@ss:w/rd", handled=False)


Serve = Callable[..., AbstractAsyncContextManager[Sink]]


@pytest.fixture
def serve() -> Serve:
    """`async with serve(starttls=context) as sink:` runs a real SMTP server."""

    @asynccontextmanager
    async def run(
        *,
        starttls: ssl.SSLContext | None = None,
        implicit: ssl.SSLContext | None = None,
        login: bool = False,
        port: int = 0,
    ) -> AsyncGenerator[Sink]:
        sink = Sink()

        def protocol() -> SMTP:
            return SMTP(
                sink,
                hostname="sink.example",
                loop=asyncio.get_running_loop(),
                tls_context=starttls,
                require_starttls=starttls is not None,
                auth_required=login,
                auth_require_tls=implicit is None,
                authenticator=sink.authenticate if login else None,
                enable_SMTPUTF8=True,
            )

        server = await asyncio.get_running_loop().create_server(
            protocol, "127.0.0.1", port, ssl=implicit
        )
        sink.port = server.sockets[0].getsockname()[1]
        try:
            yield sink
        finally:
            server.close()
            await asyncio.sleep(0.02)  # let the last connection notice

    return run
