"""What users do with their sessions, what administrators do, and what every sign-in answers."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, cast

from fastapi import APIRouter, Query, Request, Response
from fastapi import Body as JsonBody
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse

from watchword.features.sessions.agents import Kind, agent_of
from watchword.features.sessions.records import Session
from watchword.features.sessions.service import Sessions, Started
from watchword.features.users import Body, User, UserView, seen
from watchword.http.body import Line
from watchword.http.cookies import Cookies, read_cookie
from watchword.http.csrf import Csrf
from watchword.http.depends import FRESH_FOR, CurrentIdentity, requires, settled
from watchword.http.gate import Refusal, path_of
from watchword.http.problems import documented
from watchword.http.wiring import Mounting
from watchword.kernel.errors import (
    CsrfRefused,
    Forbidden,
    InvalidInput,
    InvalidToken,
    NotAuthenticated,
    NotFresh,
    SessionNotFound,
    UserNotFound,
)
from watchword.kernel.ports import RefreshTokens
from watchword.kernel.principal import Identity
from watchword.storage.store import Page

RefreshToken = Annotated[str, Field(max_length=512)]
DeviceName = Annotated[Line, Field(min_length=1, max_length=64, examples=["Ada's phone"])]
Limit = Annotated[int, Query(ge=1, le=100, description="how many at most")]
After = Annotated[str | None, Query(max_length=512, description="the `next` of the page before")]

ADMIN = "admin"


class LogoutBody(Body):
    """What POST /auth/logout may name."""

    refresh_token: RefreshToken | None = None


class LogoutAllBody(Body):
    """What POST /auth/logout-all may say."""

    keep_current: bool = Field(default=False, description="all but the session that asks")


class DeviceNameBody(Body):
    """What PATCH /auth/sessions/{id} takes."""

    name: DeviceName | None = Field(description="what its user calls the device; null: nothing")


class DeviceView(BaseModel):
    """What a session is used from, as far as it says so itself."""

    name: str | None = Field(description="given by its user")
    browser: str | None
    system: str | None
    type: Kind


class SessionView(BaseModel):
    """A session as its owner sees it. Nothing in it proves anything."""

    id: str
    current: bool = Field(description="the one that asks")
    device: DeviceView
    address: str | None = Field(description="last seen; null where it cannot be read back")
    started_at: datetime
    seen_at: datetime = Field(description="last used; minutes behind, an hour where remembered")
    expires_at: datetime = Field(description="over by then, used or not")
    amr: list[str] = Field(description="factors used (RFC 8176)")
    transport: str
    app: str = Field(description="where it was begun")
    remembered: bool


class SessionList(BaseModel):
    """Sessions that live, the newest first."""

    items: list[SessionView]
    next: str | None = Field(description="`after` of the next page")


async def sign_in_answer(started: Started, view: type[UserView]) -> Response:
    """200 with what the transport gives, and the user."""
    response = JSONResponse({})
    given = await started.prepared.deliver(started.session, started.user, response)
    content = JSONResponse({**given, "user": seen(view, started.user)})
    content.raw_headers.extend(
        (name, value) for name, value in response.raw_headers if name == b"set-cookie"
    )
    content.headers["Cache-Control"] = "no-store"
    return content


def session_view(sessions: Sessions, session: Session, *, current: str | None) -> SessionView:
    """A session as JSON."""
    agent = agent_of(session.user_agent)
    return SessionView(
        id=session.id,
        current=session.id == current,
        device=DeviceView(
            name=session.device_name, browser=agent.browser, system=agent.system, type=agent.type
        ),
        address=sessions.address(session),
        started_at=session.started_at,
        seen_at=session.seen_at,
        expires_at=session.expires_at,
        amr=list(session.amr),
        transport=session.transport,
        app=session.app,
        remembered=session.remembered,
    )


def routes(sessions: Sessions, mounting: Mounting) -> None:
    """Mount the routes of sessions."""
    _mount_logout(sessions, mounting)
    _mount_own(sessions, mounting)
    _mount_admin(sessions, mounting.router)


def _mount_logout(sessions: Sessions, mounting: Mounting) -> None:
    router, cookies = mounting.router, mounting.wiring.cookies
    refresh_tokens = mounting.wiring.every(RefreshTokens)
    by_cookie = _RefreshCookie(cookies, mounting.wiring.csrf, refresh_tokens)

    @router.post(
        "/logout",
        status_code=204,
        responses=documented(NotAuthenticated, InvalidToken, CsrfRefused),
    )
    async def logout(
        request: Request, body: Annotated[LogoutBody | None, JsonBody()] = None
    ) -> Response:
        """End the session of the bearer token, the cookie or the refresh token that comes."""
        found: Any = await settled(request)
        presented = body.refresh_token if body else None
        ended: list[str] = []
        if presented is not None and refresh_tokens:
            ended.append(await refresh_tokens[0].session_of(presented))
        elif presented is not None:
            raise InvalidToken(note="no feature takes refresh tokens")
        if isinstance(found, Identity) and found.principal.session_id is not None:
            ended.append(found.principal.session_id)
        if not ended and not _is_forged(found):
            ended.extend(await by_cookie.session(request))
        if not ended:
            raise found.error if isinstance(found, Refusal) else NotAuthenticated()
        for session_id in dict.fromkeys(ended):
            await sessions.end(session_id, why="logout")
        return _gone(request, cookies)

    @router.post(
        "/logout-all",
        status_code=204,
        responses=documented(NotAuthenticated, NotFresh, CsrfRefused, InvalidToken),
        dependencies=[requires(fresh=FRESH_FOR)],
    )
    async def logout_all(
        request: Request,
        identity: CurrentIdentity,
        body: Annotated[LogoutAllBody | None, JsonBody()] = None,
    ) -> Response:
        """End all of one's own sessions, or all but this one.

        Whatever else was begun by them is over too. Needs a sign-in at most five minutes old.
        """
        user, session_id = _acting(identity)
        keep = session_id if body is not None and body.keep_current else None
        await sessions.end_all(user.id, why="logout_all", by=user.id, keep=keep)
        return Response(status_code=204) if keep else _gone(request, cookies)


def _mount_own(sessions: Sessions, mounting: Mounting) -> None:
    router, cookies = mounting.router, mounting.wiring.cookies
    refusals = (NotAuthenticated, InvalidToken, CsrfRefused, SessionNotFound)

    @router.get(
        "/sessions",
        response_model=SessionList,
        responses=documented(NotAuthenticated, InvalidToken, InvalidInput),
    )
    async def mine(identity: CurrentIdentity, limit: Limit = 50, after: After = None) -> Any:
        """Where one is signed in, the newest first."""
        user, session_id = _acting(identity)
        page = await sessions.page(user, limit=limit, after=after)
        return _listed(sessions, page, current=session_id)

    @router.delete("/sessions/{session_id}", status_code=204, responses=documented(*refusals))
    async def end_mine(request: Request, session_id: str, identity: CurrentIdentity) -> Response:
        """End one of one's own sessions; another's is not found."""
        user, current = _acting(identity)
        await _end(sessions, session_id, why="ended_by_user", by=user.id, user_id=user.id)
        return _gone(request, cookies) if session_id == current else Response(status_code=204)

    @router.patch(
        "/sessions/{session_id}", response_model=SessionView, responses=documented(*refusals)
    )
    async def name_mine(
        session_id: str, identity: CurrentIdentity, body: Annotated[DeviceNameBody, JsonBody()]
    ) -> Any:
        """Name the device of one of one's own sessions."""
        user, current = _acting(identity)
        named = await sessions.name_device(user.id, _known(session_id), body.name)
        return session_view(sessions, named, current=current)


def _mount_admin(sessions: Sessions, router: APIRouter) -> None:
    guard = [requires(role=ADMIN)]
    refusals = (NotAuthenticated, InvalidToken, Forbidden)

    @router.get(
        "/admin/users/{user_id}/sessions",
        response_model=SessionList,
        responses=documented(*refusals, UserNotFound),
        dependencies=guard,
    )
    async def theirs(
        user_id: str, identity: CurrentIdentity, limit: Limit = 50, after: After = None
    ) -> Any:
        """Where a user is signed in."""
        user = await sessions.users.get(_plain(user_id))
        if user is None:
            raise UserNotFound
        page = await sessions.page(user, limit=limit, after=after)
        return _listed(sessions, page, current=identity.principal.session_id)

    @router.delete(
        "/admin/sessions/{session_id}",
        status_code=204,
        responses=documented(*refusals, SessionNotFound),
        dependencies=guard,
    )
    async def end_anyones(session_id: str, identity: CurrentIdentity) -> Response:
        """End anyone's session."""
        await _end(sessions, session_id, why="ended_by_admin", by=identity.principal.id)
        return Response(status_code=204)

    @router.post(
        "/admin/users/{user_id}/sessions/end",
        status_code=204,
        responses=documented(*refusals, UserNotFound),
        dependencies=guard,
    )
    async def end_theirs(user_id: str, identity: CurrentIdentity) -> Response:
        """End all sessions of a user, and whatever else was begun by them."""
        by = identity.principal.id
        await sessions.end_all(_plain(user_id), why="ended_by_admin", by=by)
        return Response(status_code=204)


class _RefreshCookie:
    """The session of a refresh token that comes in its cookie."""

    def __init__(
        self, cookies: Cookies, csrf: Csrf, refresh_tokens: Sequence[RefreshTokens]
    ) -> None:
        self._name = cookies.refresh.name.encode()
        self._csrf = csrf
        self._tokens = refresh_tokens

    async def session(self, request: Request) -> list[str]:
        """Its id; none if there is no such cookie.

        Raises:
            CsrfRefused: nothing shows that a page of ours sent it (I-21).
            InvalidToken: or a subclass.
        """
        headers = cast("list[tuple[bytes, bytes]]", request.scope["headers"])
        values = read_cookie(headers, self._name)
        if not values or not self._tokens:
            return []
        if len(values) > 1 or len(values[0]) > 512:
            raise InvalidToken(note="refresh cookie given twice, or oversize")
        if self._csrf.is_cross_site(headers):
            raise CsrfRefused(note="cross-site")
        presented = values[0].decode("latin-1")
        # Named first and judged last: whoever cannot show where it comes from ends nothing.
        session: Session = await self._tokens[0].session_named(presented)
        lives = session.expires_at - session.started_at
        token = request.headers.getlist("x-csrf-token")
        if not self._csrf.is_exempt(path_of(request.scope)) and not (
            len(token) == 1 and self._csrf.fits(session.id, token[0], ttl=lives)
        ):
            raise CsrfRefused(note="token of no or another session")
        return [await self._tokens[0].session_of(presented)]


def _is_forged(found: object) -> bool:
    """Did a cookie come without proof that a page of ours sent it?"""
    return isinstance(found, Refusal) and isinstance(found.error, CsrfRefused)


def _gone(request: Request, cookies: Cookies) -> Response:
    """204; a browser that brought cookies of a sign-in gives them all back."""
    response = Response(status_code=204)
    headers = cast("list[tuple[bytes, bytes]]", request.scope["headers"])
    given = (cookies.session, cookies.csrf, cookies.refresh, cookies.access)
    if any(read_cookie(headers, each.name.encode()) for each in given):
        cookies.clear(response)
    return response


def _listed(sessions: Sessions, page: Page[Session], *, current: str | None) -> SessionList:
    items = [session_view(sessions, each, current=current) for each in page.items]
    return SessionList(items=items, next=page.next)


async def _end(
    sessions: Sessions, session_id: str, *, why: str, by: str, user_id: str | None = None
) -> None:
    if not await sessions.end(_known(session_id), why=why, by=by, user_id=user_id):
        raise SessionNotFound


def _known(session_id: str) -> str:
    """What cannot be an id names nothing: no database need be asked for it."""
    if not (session_id.isascii() and session_id.isalnum()):
        raise SessionNotFound
    return session_id


def _plain(user_id: str) -> str:
    if not user_id.isprintable():
        raise UserNotFound
    return user_id


def _acting(identity: Identity) -> tuple[User, str]:
    if not isinstance(identity.user, User) or identity.principal.session_id is None:
        raise Forbidden("only for users")
    return identity.user, identity.principal.session_id
