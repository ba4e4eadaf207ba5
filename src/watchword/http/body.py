"""Reading bodies: bounded, of the right type, and nothing in them that a text cannot hold."""

import json
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, NoReturn, cast
from urllib.parse import parse_qsl

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import AfterValidator
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from watchword.http.headers import seal
from watchword.http.problems import (
    MAX_FAULTS,
    Refused,
    answer_error,
    field_of,
    from_validation,
    problem,
    unexpected,
)
from watchword.kernel.errors import (
    Fault,
    FieldError,
    InvalidInput,
    MalformedBody,
    UnsupportedMediaType,
    WatchwordError,
)

FORM = "application/x-www-form-urlencoded"
MAX_FIELDS = 50  # of a form; CVE row 52
MAX_DEPTH = 32  # of a JSON value
MAX_VALUES = 5000  # in one JSON body


class AuthRoute(APIRoute):
    """A route of ours: reads its body itself, answers every refusal as a problem.

    The host's own routes keep their own error answers.
    """

    takes_form = False

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        takes_form = getattr(self.endpoint, "__takes_form__", False)

        async def handler(request: Request) -> Response:
            try:
                await _read(request, takes_form=takes_form)
                response = await handle(request)
            except RequestValidationError as error:
                return problem(from_validation(error))
            except (Refused, WatchwordError) as error:
                return await answer_error(request, error)
            except HTTPException:
                raise
            except ClientDisconnect:
                return Response(status_code=400)  # nobody is there to read it
            except Exception as error:  # noqa: BLE001  the last resort (16.5.4)
                return unexpected(error)
            response.headers.setdefault("Cache-Control", "no-store")
            return seal(response)

        return handler


def takes_form(endpoint: Any) -> Any:
    """Mark an endpoint that also takes a form; it reads `form_of(request)` itself."""
    endpoint.__takes_form__ = True
    return endpoint


def content_type(request: Request) -> str:
    """The media type of the body, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _read(request: Request, *, takes_form: bool) -> None:
    if request.method in ("GET", "HEAD", "OPTIONS"):
        return
    body = await read_bounded(request)
    if not body:
        return
    kind = content_type(request)
    if kind == "application/json":
        setattr(request, "_json", parse_json(body))  # noqa: B010  where request.json() keeps it
    elif not (takes_form and kind == FORM):
        raise UnsupportedMediaType(headers={"Accept": "application/json"})


async def read_bounded(request: Request) -> bytes:
    """The whole body, unless it is larger than `max_body`; read once, whoever asks again.

    Raises:
        InvalidInput: too large.
    """
    if hasattr(request, "_body"):
        return await request.body()
    limit: int = request.scope["watchword.gate"].max_body
    too_large = InvalidInput([Fault("body", "body_too_large", f"is over {limit} bytes")])
    declared = request.headers.get("content-length", "0")
    if not declared.isascii() or not declared.isdigit() or int(declared[:20]) > limit:
        raise too_large
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise too_large
        chunks.append(chunk)
    body = b"".join(chunks)
    setattr(request, "_body", body)  # noqa: B010  where request.body() keeps it
    return body


def _refuse_constant(name: str) -> NoReturn:
    raise MalformedBody(f"{name} is not JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise MalformedBody("a name stands twice in one object")
    return made


def parse_json(body: bytes) -> Any:
    """Read JSON strictly: UTF-8, no NaN, no name twice, no NUL, no half of a surrogate pair."""
    try:
        value = json.loads(
            body.decode("utf-8"), parse_constant=_refuse_constant, object_pairs_hook=_object
        )
    except (ValueError, RecursionError) as error:
        raise MalformedBody from error
    faults: list[Fault] = []
    for place, fault in _faults(value):
        faults.append(Fault(place.path(), *fault))
        if len(faults) == MAX_FAULTS:
            break
    if faults:
        raise InvalidInput(faults)
    return value


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a value stands. Its path is only put together for what is wrong with it."""

    within: "_Place | None"
    name: str | int

    def path(self) -> str:
        names: list[str] = []
        place: _Place = self
        while place.within is not None:
            names.append(str(place.name))
            place = place.within
        return field_of(reversed(names))


def _faults(value: Any) -> Iterator[tuple[_Place, tuple[str, str]]]:
    """What a text or a number of ours cannot be, wherever it stands."""
    waiting: list[tuple[Any, _Place, int]] = [(value, _Place(None, ""), 0)]
    seen = 0
    while waiting:
        item, place, depth = waiting.pop()
        seen += 1
        if seen > MAX_VALUES or depth > MAX_DEPTH:
            raise MalformedBody("holds too much, or is nested too deeply")
        if isinstance(item, str):
            if fault := _text_fault(item):
                yield place, fault
        elif isinstance(item, float):
            if item in (float("inf"), float("-inf")):
                yield place, ("number_too_large", "is out of range")
        elif isinstance(item, dict | list):
            inner = cast("dict[str, Any] | list[Any]", item)
            if len(inner) + len(waiting) > MAX_VALUES:
                raise MalformedBody("holds too much, or is nested too deeply")
            named = inner.items() if isinstance(inner, dict) else enumerate(inner)
            for name, each in named:
                if isinstance(name, str) and _text_fault(name):
                    yield place, ("not_a_text", "has a name that is no text")
                else:
                    waiting.append((each, _Place(place, name), depth + 1))


def _text_fault(text: str) -> tuple[str, str] | None:
    if "\x00" in text:
        return "not_a_text", "has a NUL"
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        return "not_a_text", "has half of a surrogate pair"
    return None


async def form_of(request: Request) -> dict[str, str]:
    """The fields of a form body that `AuthRoute` has read.

    Raises:
        MalformedBody: no form, or more fields than any of ours has.
        InvalidInput: a field twice, or with a NUL.
    """
    body = await read_bounded(request)
    try:
        pairs = parse_qsl(
            body.decode("utf-8"),
            keep_blank_values=True,
            strict_parsing=bool(body),
            max_num_fields=MAX_FIELDS,
            errors="strict",
        )
    except ValueError as error:
        raise MalformedBody from error
    fields: dict[str, str] = {}
    for name, value in pairs:
        if fault := _text_fault(name + value):
            raise InvalidInput([Fault("body", *fault)])
        if name in fields:
            raise InvalidInput([Fault(name[:64], "given_twice", "stands twice in the form")])
        fields[name] = value
    return fields


def _printable(text: str) -> str:
    # U+009B is to a terminal what Escape and [ are.
    if any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in text):
        raise FieldError("control_character", "has a control character")
    return text


Line = Annotated[str, AfterValidator(_printable)]
"""A text of one line: no control characters."""
