"""Ids in paths and fields in bodies as a stranger would write them: refused, and never a 500."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from tests.attacks.found import PLAIN_IDS, consumers
from tests.told import ADA, PASSWORD, telling
from watchword.testing.story import bearer

JSON = {"Content-Type": "application/json"}
HOSTILE = (
    *("\x00", "a\x00b", "\ud800", "\u202e", "é" * 40, "' OR 1=1 --", '{"$ne": null}', "$where"),
    *(
        "..",
        "../../me",
        "%2e%2e%2f",
        "*",
        "%",
        "_",
        "0" * 26,
        "x" * 300,
        " ",
        "null",
        "-1",
        "1e999",
    ),
)


def places(openapi: dict[str, Any]) -> Iterator[tuple[str, str, list[str]]]:
    """Every route with an id in its path."""
    for path, operations in openapi["paths"].items():
        for method, operation in operations.items():
            named = [each for each in operation.get("parameters", ()) if each["in"] == "path"]
            if named:
                assert all(PLAIN_IDS.fullmatch(each["name"]) for each in named), path
                yield method, path, [each["name"] for each in named]


def written(text: str) -> str:
    return quote(text.encode("utf-8", "surrogatepass"), safe="")


@pytest.mark.standard("7: 8.2.2", "8: 9.1.3")
async def test_a_hostile_id_in_a_path_names_nothing(database_url: str) -> None:
    async with telling(database_url) as story:
        await story.auth.passwords.create_user(
            email=ADA, password=PASSWORD, is_verified=True, roles=("admin",)
        )
        headers = bearer((await story.log_in())["access_token"])
        found = list(places(story.app.openapi()))
        wrong: list[str] = []
        assert len(found) > 4
        for method, path, names in found:
            for text in HOSTILE:
                filled = path
                for name in names:
                    filled = filled.replace(f"{{{name}}}", written(text))
                # What a route asks for in its body must not stand before what it is asked here.
                for body in (None, {"name": "x"}):
                    answer = await story.client.request(
                        method.upper(), filled, headers=headers, json=body
                    )
                    if answer.status_code not in (404, 405, 422):
                        wrong.append(f"{method} {filled[:80]}: {answer.status_code}")
        assert not wrong, "\n".join(wrong)
        assert (await story.client.get("/auth/me", headers=headers)).status_code == 200


@pytest.mark.standard("8: 9.1.3")
async def test_a_hostile_text_where_a_token_belongs_is_no_token(database_url: str) -> None:
    async with telling(database_url) as story:
        await story.join()
        headers = bearer((await story.log_in())["access_token"])
        filled = {"password": PASSWORD, "new_password": PASSWORD, "current_password": PASSWORD}
        for door in consumers(story.app.openapi()).values():
            if "path" not in door:
                continue
            for prefix in ("", "wwr_", "wwh_", "wwv_"):
                for text in HOSTILE:
                    body: dict[str, Any] = {k: v for k, v in filled.items() if k in door["fields"]}
                    body[door["field"]] = prefix + text
                    answer = await story.client.request(
                        door["method"],
                        door["path"],
                        headers={**JSON, **(headers if door["needs_session"] else {})},
                        content=json.dumps(body),  # in ASCII: any text can be escaped
                    )
                    shown = (door["path"], prefix + text, answer.status_code, answer.text[:200])
                    assert answer.status_code in (401, 422), shown
        assert (await story.client.get("/auth/me", headers=headers)).status_code == 200
