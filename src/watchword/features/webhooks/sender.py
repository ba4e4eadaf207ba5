"""Sends what was signed: to the very address that was checked, and believes no answer's words."""

import asyncio
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

from watchword.features.webhooks.errors import DeliveryFailed, TargetRefused
from watchword.features.webhooks.targets import (
    Address,
    Network,
    Target,
    literal,
    refusal_of,
    target_of,
)
from watchword.kernel.moment import refuse_in_transaction

Resolve = Callable[[str, int], Awaitable[list[Address]]]

_THREADS: Final = 8  # names that are looked up at once
_LONGEST_WAIT: Final = 6 * 3600  # seconds that an endpoint may ask to be left alone


class Sender(Protocol):
    """Takes one signed message to an endpoint."""

    async def send(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        """Send it once; the status, which is 2xx.

        Raises:
            DeliveryFailed: it was not taken.
            TargetRefused: nothing is sent there.
        """
        ...


class Resolver:
    """The system's resolver: every address of a name.

    In threads of its own, and one at most for each name: a name whose servers never answer keeps
    a thread for half a minute, and the loop's own threads are what databases are reached with.
    """

    def __init__(self) -> None:
        self._threads: ThreadPoolExecutor | None = None
        self._process = 0  # whose threads they are: a forked child has none
        self._asked: dict[tuple[str, int], asyncio.Future[list[Any]]] = {}

    async def __call__(self, host: str, port: int) -> list[Address]:
        """Ask it, or wait for the answer that is under way."""
        loop = asyncio.get_running_loop()
        if self._threads is None or self._process != os.getpid():
            self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="watchword resolver")
            self._process, self._asked = os.getpid(), {}
        asked = self._asked.get((host, port))
        if asked is None or asked.get_loop() is not loop:
            ask = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
            asked = loop.run_in_executor(self._threads, ask)
            self._asked[host, port] = asked
            asked.add_done_callback(partial(self._answered, host, port))
        found = await asyncio.shield(asked)  # whoever has waited long enough stops nobody else
        addresses = (literal(str(each[4][0]).partition("%")[0]) for each in found)
        return list(dict.fromkeys(each for each in addresses if each is not None))

    def _answered(self, host: str, port: int, asked: "asyncio.Future[list[Any]]") -> None:
        if self._asked.get((host, port)) is asked:
            del self._asked[host, port]
        if not asked.cancelled():
            asked.exception()  # perhaps nobody waits any more


@dataclass(slots=True, kw_only=True)
class HttpSender:
    """Over HTTP/1.1, one connection a message.

    A name is resolved once: every address that it has is checked, and the connection goes to one
    of these, so that a name which resolves to something else a moment later gains nothing. The
    certificate is checked against the name. No redirect is followed, no proxy of the environment
    is used, and of the answer nothing but its status and Retry-After is read.
    """

    timeout: timedelta
    allowed: tuple[Network, ...] = ()
    development: bool = False
    ca: Path | None = None
    resolve: Resolve = field(default_factory=Resolver)
    _context: ssl.SSLContext | None = None

    async def send(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        """Send it once; the status."""
        refuse_in_transaction("sending a webhook")
        target = target_of(url, development=self.development)
        try:
            async with asyncio.timeout(self.timeout.total_seconds()):
                status, retry_after = await self._post(target, body, headers)
        except (DeliveryFailed, TargetRefused):
            raise
        except TimeoutError:
            raise DeliveryFailed("timeout") from None
        except Exception as error:
            raise DeliveryFailed(_named(error)) from error
        if 200 <= status < 300:
            return status
        raise DeliveryFailed(f"status {status}", is_gone=status == 410, wait=retry_after)

    async def _post(
        self, target: Target, body: bytes, headers: Mapping[str, str]
    ) -> tuple[int, int | None]:
        import httpcore  # noqa: PLC0415  an App that sends nothing need not load it

        addresses = await self._checked(target)
        sent = [
            ("Host", target.host_header),
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("User-Agent", "Watchword-Webhooks"),
            ("Connection", "close"),
            *headers.items(),
        ]
        url = httpcore.URL(
            scheme=b"https" if target.is_https else b"http",
            host=target.host.encode("ascii"),
            port=target.port,
            target=target.path.encode("ascii"),
        )
        async with httpcore.AsyncConnectionPool(
            ssl_context=self._tls() if target.is_https else None,
            max_connections=1,
            max_keepalive_connections=0,
            network_backend=_to_these(addresses),
        ) as pool:
            request = httpcore.Request(
                "POST",
                url,
                headers=[(name.encode("ascii"), value.encode("ascii")) for name, value in sent],
                content=body,
            )
            answer = await pool.handle_async_request(request)
            try:
                wait = _seconds(dict(answer.headers))
                return answer.status, wait
            finally:
                await answer.aclose()

    async def _checked(self, target: Target) -> list[Address]:
        given = literal(target.host)
        addresses = [given] if given is not None else await self.resolve(target.host, target.port)
        if not addresses:
            raise DeliveryFailed("no address")
        for each in addresses:  # one that is ours among them is not by chance
            why = refusal_of(each, allowed=self.allowed, development=self.development)
            if why is not None:
                raise TargetRefused(why)
            if not target.is_https and not each.is_loopback:
                raise TargetRefused("is not https")
        return addresses

    def _tls(self) -> ssl.SSLContext:
        if self._context is None:
            cafile = None if self.ca is None else str(self.ca)
            self._context = ssl.create_default_context(cafile=cafile)
        return self._context


def _to_these(addresses: list[Address]) -> Any:
    """A network that knows these addresses and no other, whatever name it is asked for."""
    import httpcore  # noqa: PLC0415  as above

    network: Any = httpcore.AnyIOBackend()

    class Checked(httpcore.AsyncNetworkBackend):
        async def connect_tcp(
            self,
            host: str,  # noqa: ARG002  resolved already
            port: int,
            timeout: float | None = None,  # noqa: ASYNC109  the library's name
            local_address: str | None = None,
            socket_options: Iterable[Any] | None = None,
        ) -> httpcore.AsyncNetworkStream:
            failed: Exception = DeliveryFailed("no address")
            for address in addresses:
                try:
                    stream: httpcore.AsyncNetworkStream = await network.connect_tcp(
                        str(address), port, timeout, local_address, socket_options
                    )
                except httpcore.ConnectError as error:
                    failed = error
                else:
                    return stream
            raise failed

    return Checked()


def _seconds(headers: Mapping[bytes, bytes]) -> int | None:
    for name, value in headers.items():
        if name.lower() == b"retry-after" and value.isdigit() and len(value) < 10:
            return min(int(value), _LONGEST_WAIT)
    return None


def _named(error: Exception) -> str:
    """The class of what went wrong; of a broken certificate, that it is one."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLCertVerificationError):
            return "certificate"
        seen = seen.__cause__ or seen.__context__
    return type(error).__name__
