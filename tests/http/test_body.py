"""Bad input on every route: a 4xx problem that names the field, never a 500."""

import json
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.told import ADA, PASSWORD, Story, problem, telling
from watchword.testing.story import bearer

ROUTES: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "register"): {"email": "new@example.com", "password": PASSWORD, "username": "x"},
    ("POST", "login"): {"email": ADA, "password": PASSWORD, "transport": "bearer"},
    ("POST", "login/continue"): {"challenge": "wwh_x"},
    ("POST", "logout"): {"refresh_token": "wwr_x"},
    ("POST", "logout-all"): {"keep_current": True},
    ("POST", "refresh"): {"refresh_token": "wwr_x"},
    ("POST", "reauthenticate"): {"method": "password", "password": PASSWORD},
    ("POST", "reauthenticate/continue"): {"challenge": "wwh_x"},
    ("PATCH", "sessions/{session_id}"): {"name": "x"},
    ("POST", "api-keys"): {"name": "x"},
    ("POST", "api-keys/{key_id}/rotate"): {"overlap": "1h"},
    ("POST", "password/change"): {"current_password": "x", "new_password": PASSWORD},
    ("POST", "password/change-required"): {"challenge": "x", "new_password": PASSWORD},
    ("POST", "password-reset-request"): {"email": ADA},
    ("POST", "password-reset"): {"token": "x", "new_password": PASSWORD},
    ("POST", "verify-email-request"): {"email": ADA},
    ("POST", "verify-email"): {"token": "x", "password": PASSWORD},
    ("POST", "email/change"): {"new_email": "x@example.com", "current_password": "x"},
    ("POST", "email/confirm"): {"token": "x", "password": "x"},
    ("POST", "email/undo"): {"token": "x"},
    ("PATCH", "me"): {"username": "x", "user_settings": {}},
}
NOTHING_NEEDED = {
    *(("PATCH", "me"), ("POST", "logout"), ("POST", "logout-all"), ("POST", "refresh")),
    ("POST", "api-keys/{key_id}/rotate"),
}
MAY_BE_NULL = ("username", "refresh_token", "transport", "password", "overlap")
JSON = {"Content-Type": "application/json"}


@pytest.fixture
async def story() -> AsyncGenerator[Story, None]:
    async with telling() as told:
        await told.join()
        told.client.headers.update(bearer((await told.log_in())["access_token"]))
        yield told


async def send(story: Story, route: tuple[str, str], content: bytes | str) -> httpx.Response:
    method, path = route
    return await story.client.request(method, f"/auth/{path}", content=content, headers=JSON)


async def test_every_route_with_a_body_is_in_the_list(story: Story) -> None:
    schema = (await story.client.get("/openapi.json")).json()
    with_body = {
        (method.upper(), path.removeprefix("/auth/"))
        for path, item in schema["paths"].items()
        for method, route in item.items()
        if "requestBody" in route
    }
    assert with_body == set(ROUTES)


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"nonsense",
        b'{"email": ',
        b"\xff\xfe\x00",
        b'{"email": "\xff@example.com"}',
        b'{"email": "a@example.com", "email": "b@example.com"}',
        b'{"x": {"a": 1, "a": 2}}',
        b'{"email": NaN}',
        b'{"email": Infinity}',
        b'{"email": -Infinity}',
        b"[" * 20_000,
        b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
        b'{"a": ' + b"[" * 40 + b"]" * 40 + b"}",
        b'{"email": ' + b"9" * 5_000 + b"}",
        "\ufeff{}".encode(),
        b"{} {}",
        b"{'email': 'x'}",
    ],
    ids=lambda content: repr(content[:24]),
)
async def test_what_is_no_json_is_a_400_everywhere(story: Story, content: bytes) -> None:
    for route in ROUTES:
        problem(await send(story, route, content), 400, "malformed_body")


@pytest.mark.parametrize("content", [b"[]", b"1", b'"text"', b"true", b"[1, 2]", b"1e999"])
async def test_json_that_is_no_object_is_refused_everywhere(story: Story, content: bytes) -> None:
    for route in ROUTES:
        answer = await send(story, route, content)
        assert answer.status_code in (400, 422), (route, answer.text)


@pytest.mark.capability("DEF-14", "DEF-36")
@pytest.mark.parametrize(
    "value",
    [1, 1.5, True, [], {}, ["x"], {"$ne": ""}, 10**400, None, "\x00", "a\x00b", "\ud800"],
    ids=lambda value: repr(value)[:16],
)
async def test_a_value_that_cannot_be_is_named(story: Story, value: object) -> None:
    for route, right in ROUTES.items():
        for field in right:
            if field == "user_settings" and (value is None or isinstance(value, dict)):
                continue
            if value is None and (field in MAY_BE_NULL or route[1].startswith("sessions/")):
                continue
            if field == "keep_current" and value in (1, True):
                continue
            answer = await send(story, route, json.dumps({**right, field: value}))
            if value == 10**400:  # over what Python reads of a number
                assert answer.status_code in (400, 422)
                continue
            body = problem(answer, 422, "validation_failed")
            assert {error["field"] for error in body["errors"]} == {field}, (route, body)
            assert "correct horse" not in answer.text


async def test_an_unknown_field_is_named_and_a_missing_one_too(story: Story) -> None:
    for route, right in ROUTES.items():
        body = problem(
            await send(story, route, json.dumps({**right, "extra": 1})), 422, "validation_failed"
        )
        assert ("extra", "unknown_field") in {
            (error["field"], error["code"]) for error in body["errors"]
        }
        if route in NOTHING_NEEDED:
            continue
        body = problem(await send(story, route, b"{}"), 422, "validation_failed")
        assert {error["code"] for error in body["errors"]} == {"missing"}
        assert {error["field"] for error in body["errors"]} <= set(right)


@pytest.mark.standard("CVE row 52", "CVE row 51")
async def test_too_much_is_refused_whatever_is_declared(story: Story) -> None:
    large = json.dumps({"email": "x" * 3_000_000})
    for route in ROUTES:
        body = problem(await send(story, route, large), 422, "validation_failed")
        assert body["errors"][0]["code"] == "body_too_large"

    async def stream() -> AsyncGenerator[bytes, None]:
        for _ in range(3_000):
            yield b"x" * 1_000

    answer = await story.client.post("/auth/login", content=stream(), headers=JSON)
    problem(answer, 422, "validation_failed")
    for length in ("-1", "x", "9" * 400, "1e3", "٣", ""):
        headers = [(b"content-type", b"application/json"), (b"content-length", length.encode())]
        answer = await story.client.post("/auth/login", content=b"{}", headers=headers)
        assert answer.status_code in (400, 422), length


@pytest.mark.standard("CVE row 52")
async def test_forms_are_bounded_and_strict(story: Story) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded", "Origin": "http://localhost:8000"}
    for content in (
        "&".join(f"a{number}=1" for number in range(200)),
        "username=a&username=b&password=x",
        "username=%00&password=x",
        b"username=\xff&password=x",
        "username=%ff&password=x",
        "nonsense",
        "",
        "username[]=a",
    ):
        answer = await story.client.post("/auth/login", content=content, headers=form)
        assert answer.status_code in (400, 415, 422), (content, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.standard("CVE row 33")
@pytest.mark.capability("S2-28")
@pytest.mark.parametrize(
    "email",
    [
        "a@x.com,b@y.com",
        "Ada <ada@example.com>",
        "ada@example.com\r\nBcc: eve@example.com",
        "ada@example.com\n",
        "ada",
        "",
        "x" * 2000 + "@example.com",
    ],
    ids=lambda email: repr(email)[:20],
)
async def test_what_is_no_address_is_mailed_nothing(story: Story, email: str) -> None:
    story.outbox.messages.clear()
    for path, field in (
        ("register", "email"),
        ("password-reset-request", "email"),
        ("verify-email-request", "email"),
        ("email/change", "new_email"),
    ):
        right = ROUTES["POST", path]
        answer = await send(story, ("POST", path), json.dumps({**right, field: email}))
        errors = problem(answer, 422, "validation_failed")["errors"]
        assert {error["field"] for error in errors} <= {field, "email"}
    await story.mails()
    assert story.outbox.messages == []


async def test_a_name_of_one_line_only(story: Story) -> None:
    for name in ("", "a\nb", "a\rb", "\x1b[31m", "x" * 129, "\x7f"):
        answer = await send(story, ("PATCH", "me"), json.dumps({"username": name}))
        errors = problem(answer, 422, "validation_failed")["errors"]
        assert {error["field"] for error in errors} == {"username"}


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.standard("16.5")
async def test_whatever_is_sent_nothing_breaks(story: Story, count: Any) -> None:
    bodies: list[bytes] = []

    @settings(
        max_examples=count(60, 2000),
        deadline=None,
        database=None,
        suppress_health_check=[
            HealthCheck.too_slow,
            HealthCheck.data_too_large,
            HealthCheck.filter_too_much,
        ],
    )
    @given(
        st.dictionaries(st.sampled_from(sorted({f for r in ROUTES.values() for f in r})), anything)
    )
    def collect(body: dict[str, Any]) -> None:
        bodies.append(json.dumps(body).encode("utf-8", "surrogatepass"))

    collect()
    for body in bodies:
        given_fields = json.loads(body)
        for route, right in ROUTES.items():
            fields = {key: value for key, value in given_fields.items() if key in right}
            answer = await send(story, route, json.dumps({**right, **fields}))
            assert answer.status_code < 500, (route, fields, answer.text)
            if answer.status_code == 204 and route[1].startswith("logout"):
                token = (await story.log_in())["access_token"]
                story.client.headers.update(bearer(token))
            if answer.status_code >= 400:
                assert answer.headers["content-type"] == "application/problem+json"
                assert answer.json()["code"]
