"""What operators see of a worker: `/metrics`, and the dashboard that is made of it."""

import asyncio
import json
import re
import threading
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

from tests.told import ADA, EVE, PASSWORD, Story, telling
from watchword.features.limits import limits
from watchword.kernel.errors import StoreUnavailable
from watchword.presets import standard
from watchword.server.metrics import metrics
from watchword.server.probes import probes

NOBODY = "http://127.0.0.1:9/"  # the discard port: nothing listens
DASHBOARD = Path(__file__).parents[2] / "deploy" / "grafana" / "watchword.json"

# What is nought while nothing waits or fails, and the test's clock stands still.
QUIET = {
    "watchword_feed_age_seconds",
    "watchword_feed_woken",
    "watchword_mail_overdue_seconds",
    "watchword_mail_waiting",
    "watchword_audit_unsealed_seconds",
    "watchword_background_failures",
}


def installed(app: FastAPI, auth: Any) -> None:
    app.include_router(metrics(auth))
    app.include_router(probes(auth))


async def near(story: Story, path: str = "/metrics", **headers: str) -> httpx.Response:
    """As this machine asks."""
    local = httpx.ASGITransport(app=cast("Any", story.app), client=("127.0.0.1", 1))
    async with httpx.AsyncClient(transport=local, base_url="http://localhost") as client:
        return await client.get(path, headers=headers)


async def figures(story: Story) -> dict[str, dict[tuple[str, ...], float]]:
    """Every sample, by family and the values of its labels in the order of their names."""
    text = (await near(story)).text
    found: dict[str, dict[tuple[str, ...], float]] = defaultdict(dict)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.endswith(("_created", "_bucket", "_sum")):
                continue
            labels = tuple(value for _, value in sorted(sample.labels.items()))
            found[family.name][labels] = sample.value
        found.setdefault(family.name, {})
    return found


async def walk(story: Story) -> None:
    """Sign up, prove the address, sign in, be wrong, refresh, be forged, sign out."""
    await story.join()
    tokens = await story.log_in()
    for _ in range(2):
        assert (await story.me(tokens["access_token"])).status_code == 200
    renewed = await story.client.post(
        "/auth/refresh", json={"refresh_token": tokens["refresh_token"]}
    )
    assert renewed.status_code == 200
    async with story.another_client() as browser:
        await story.log_in(transport="cookie", client=browser)
        assert (await browser.post("/auth/logout", json={})).json()["code"] == "csrf_refused"
    for _ in range(6):
        await story.client.post("/auth/login", json={"email": ADA, "password": "not the one"})
    access = renewed.json()["access_token"]
    gone = await story.client.post("/auth/logout", headers={"Authorization": f"Bearer {access}"})
    assert gone.status_code == 204


async def refuse_a_hash(story: Story) -> dict[str, dict[tuple[str, ...], float]]:
    """Sign in while one hash is at work and one waits; the figures of that moment."""
    held = threading.Event()
    busy = [asyncio.create_task(story.auth.hash_pool.run(held.wait)) for _ in range(2)]
    await asyncio.sleep(0)
    try:
        body = {"email": EVE, "password": PASSWORD}
        assert (await story.client.post("/auth/login", json=body)).status_code == 503
        return await figures(story)
    finally:
        held.set()
        await asyncio.gather(*busy)


@pytest.mark.capability("S1-41", "S0-120")
@pytest.mark.invariant("I-22")
async def test_after_a_walk_each_family_has_figures(sqlite_url: str) -> None:
    async with telling(sqlite_url, features=standard(), hash_threads=1, hash_queue=1) as story:
        installed(story.app, story.auth)
        await story.auth.webhooks.add(NOBODY, events=["*"])
        await walk(story)
        story.move(minutes=61)
        busy = await refuse_a_hash(story)
        await story.auth.webhooks.deliver_due()
        found = await figures(story)
        for _ in range(200):  # the worker reads its feed, and tries the endpoint, a little later
            if found["watchword_feed_lag_seconds"][()] and found["watchword_webhooks"]["failed",]:
                break
            await asyncio.sleep(0.05)
            found = await figures(story)
        assert set(found) >= QUIET
        still = {name for name in found if not any([*busy[name].values(), *found[name].values()])}
        assert not still - QUIET
        assert busy["watchword_hashes_running"] == busy["watchword_hashes_waiting"] == {(): 1}
        assert found["watchword_sign_ins"]["success",] == 2
        assert found["watchword_sign_ins"]["failure",] >= 5
        assert found["watchword_attempts"]["login", "tried"] >= 8
        assert found["watchword_attempts"]["login", "right"] >= 2
        assert found["watchword_auth_actions"]["login_success",] == 2
        assert found["watchword_refusals"]["csrf_refused", "403"] == 1
        assert found["watchword_limits"]["login", "allowed"] >= 8
        assert found["watchword_mails"]["sent",] >= 1
        assert found["watchword_store_seconds"]["ok", "commit"] >= 1
        text = (await near(story)).text
        for personal in (ADA, EVE, "ada", PASSWORD):
            assert personal not in text


async def test_a_refused_sign_in_shows_at_the_limiter(sqlite_url: str) -> None:
    chosen = [each for each in standard() if each.name != "limits"]
    async with telling(sqlite_url, features=[*chosen, limits(login="2/5m per address")]) as story:
        installed(story.app, story.auth)
        for _ in range(4):
            await story.client.post("/auth/login", json={"email": EVE, "password": PASSWORD})
        found = await figures(story)
        assert found["watchword_limits"]["login", "refused"] == 2
        assert found["watchword_attempts"]["login", "refused"] == 2
        assert found["watchword_attempts"]["login", "wrong"] == 2
        assert found["watchword_sign_ins"]["attempt",] == 4
        assert found["watchword_refusals"]["too_many_attempts", "429"] == 2


async def test_what_anybody_sends_makes_no_label(sqlite_url: str) -> None:
    async with telling(sqlite_url) as story:
        installed(story.app, story.auth)
        for number in range(5):
            email = f"unheard-of-{number}@example.com"
            await story.client.post("/auth/login", json={"email": email, "password": PASSWORD})
            await story.client.get(f"/auth/unheard-of-{number}")
            await story.me(f"unheard-of-{number}")
        assert "unheard" not in (await near(story)).text


async def test_the_page_answers_while_the_store_is_away(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with telling(sqlite_url) as story:
        installed(story.app, story.auth)

        async def away(*_: object, **__: object) -> Any:
            raise StoreUnavailable

        monkeypatch.setattr(story.auth.driver.verbs, "count", away)
        found = await figures(story)
        assert found["watchword_mail_waiting"] == {}
        assert found["watchword_store_seconds"]["unavailable", "count"] == 1


async def test_the_database_is_not_asked_at_every_look(sqlite_url: str) -> None:
    async with telling(sqlite_url) as story:
        installed(story.app, story.auth)
        for _ in range(5):
            await figures(story)
        found = await figures(story)
        assert found["watchword_store_seconds"]["ok", "count"] == 1


@pytest.mark.invariant("I-22")
async def test_the_reasons_of_readiness_name_each_part(sqlite_url: str) -> None:
    async with telling(sqlite_url, probe_token="a-token-of-the-monitor-1") as story:
        installed(story.app, story.auth)
        assert (await near(story, "/readyz")).json()["reasons"] == {
            "store": "ok",
            "feed": "ok",
            "keys": "ok",
            "mail": "ok",
            "background": "ok",
        }
        assert "reasons" not in (await story.client.get("/readyz", headers=_forwarded())).json()
        background = story.auth.background
        assert background is not None
        background.failing.add("tidy")
        assert (await near(story, "/readyz")).json()["reasons"]["background"] == "failing: tidy"


def _forwarded() -> dict[str, str]:
    return {"X-Forwarded-For": "203.0.113.9"}


def queried(panels: list[dict[str, Any]]) -> Iterator[str]:
    for panel in panels:
        yield from queried(panel.get("panels", []))
        for target in panel.get("targets", []):
            yield target["expr"]


async def test_the_dashboard_asks_for_what_there_is() -> None:
    dashboard = json.loads(DASHBOARD.read_text("utf-8"))
    asked = {
        name
        for expression in queried(dashboard["panels"])
        for name in re.findall(r"\bwatchword_[a-z_]+", expression)
    }
    async with telling("sqlite://") as story:
        installed(story.app, story.auth)
        families = (await near(story)).text
    known: set[str] = set()
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", families, re.MULTILINE):
        known |= {f"{name}{end}" for end in ("_bucket", "_sum", "_count")} | {name}
        assert kind in {"counter", "gauge", "histogram"}
    assert asked
    assert asked <= known
    plain = {re.sub("_(bucket|sum|count)$", "", name) for name in asked}
    every = set(re.findall(r"^# TYPE (\S+)", families, re.MULTILINE))
    assert {name for name in every if name.startswith("watchword_")} - plain <= {"watchword_info"}
