"""What every route that signs somebody in does besides the chain, in one place for all of them."""

from contextlib import suppress
from dataclasses import dataclass, replace

from fastapi import Request, Response

from watchword.features.sessions import (
    DEVICE_LIVES,
    Session,
    Started,
    Transport,
    sign_in_answer,
)
from watchword.features.sign_in.service import Pending, SignIns, is_owed
from watchword.features.users import User, view_of
from watchword.http.client import client_of, device_digest
from watchword.http.cookies import read_cookie
from watchword.http.depends import session_replaced
from watchword.http.wiring import Wiring
from watchword.kernel.errors import CsrfRefused, InvalidToken, WatchwordError
from watchword.kernel.ports import RefreshTokens
from watchword.kernel.secrets import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrance:
    """The way in over HTTP. A feature with a way of signing in of its own uses it too."""

    sign_ins: SignIns
    wiring: Wiring

    def admit_form(self, request: Request) -> None:
        """Refuse a form that does not say that it is ours: it needs no preflight (I-21).

        Raises:
            CsrfRefused
        """
        if self.wiring.csrf.is_cross_site(request.scope["headers"]) is not False:
            raise CsrfRefused(note="a form from elsewhere, or from who knows where")

    def admit(self, request: Request, transport: str) -> None:
        """Refuse what another site's page sends, where the answer would stay in the browser.

        It could sign its visitor in as somebody else. Bearer tokens go to whoever reads the
        answer and leave nothing behind.

        Raises:
            CsrfRefused
        """
        if _sets_cookies(transport) and self.wiring.csrf.is_cross_site(request.scope["headers"]):
            raise CsrfRefused(note="sign-in from another site")

    async def finish(
        self,
        request: Request,
        user: User,
        *,
        amr: tuple[str, ...],
        transport: Transport,
        remember: bool = False,
    ) -> Response:
        """`SignIns.finish`, answered.

        A browser gets its device cookie with the refusal already: what is owed is bound to it.

        Raises:
            WatchwordError: as there.
        """
        client = client_of(request)
        given = None
        if client.device is None and _sets_cookies(transport.name):
            given = self.wiring.clients.new_device()
            client = replace(client, device=device_digest(given), device_cookie=given)
        try:
            started = await self.sign_ins.finish(
                user,
                amr=amr,
                transport=transport,
                client=client,
                remember=remember,
                replaces=await self._replaced(request, transport.name),
            )
        except WatchwordError as refused:
            if given is None or not is_owed(refused):
                raise
            raise refused.carrying(headers={"Set-Cookie": self._cookie(given)}) from None
        return await self._answered(started)

    async def pending(self, request: Request, token: str) -> Pending:
        """`SignIns.challenge` for a sign-in. A try is counted.

        Raises:
            CsrfRefused: another site's page sends it.
            InvalidToken, ExpiredToken
        """
        pending = await self.sign_ins.challenge(token, client=client_of(request), purpose="sign_in")
        self.admit(request, pending.challenge.transport)
        return pending

    async def proceed(self, request: Request, pending: Pending) -> Response:
        """`SignIns.proceed`, answered.

        Raises:
            WatchwordError: as there.
        """
        started = await self.sign_ins.proceed(
            pending,
            client=client_of(request),
            replaces=await self._replaced(request, pending.challenge.transport),
        )
        return await self._answered(started)

    async def _replaced(self, request: Request, transport: str) -> str | None:
        """The session whose place the new one takes in this browser (7.2.4).

        That of its session or access cookie; else the one that its refresh cookie is of. Nothing
        is judged: whoever holds a token of a family, old or new, could end its session anyway.
        """
        if not _sets_cookies(transport):
            return None
        replaced = session_replaced(request)
        if replaced is not None:
            return replaced
        name = self.wiring.cookies.refresh.name.encode()
        held = read_cookie(request.scope["headers"], name)
        if len(held) != 1:  # of several nobody knows which is the browser's own (I-21)
            return None
        for refresh_tokens in self.wiring.every(RefreshTokens):
            with suppress(InvalidToken):
                session: Session = await refresh_tokens.session_named(held[0].decode("latin-1"))
                return session.id
        return None

    async def _answered(self, started: Started) -> Response:
        return await sign_in_answer(started, view_of(self.sign_ins.users.kind))

    def _cookie(self, device: Secret) -> str:
        made = Response()
        self.wiring.cookies.device.set(made, device.reveal(), lives=DEVICE_LIVES)
        return made.headers["set-cookie"]


def _sets_cookies(transport: str) -> bool:
    """All but one do; one that we do not know is taken for one that does."""
    return transport != "bearer"
