"""Limits as settings: read, refused, and printed back."""

from datetime import timedelta
from typing import Any

import pytest

from tests.features.limits.conftest import counting
from tests.told import telling
from watchword.features.limits import limits
from watchword.kernel.errors import ConfigurationError
from watchword.kernel.quotas import (
    Quota,
    Standing,
    format_quotas,
    in_order,
    network_of,
    parse_quotas,
    rate_headers,
)
from watchword.presets import Watchword, minimal
from watchword.server.running import _refuse_counting_apart

PAIR = Quota(5, timedelta(minutes=5), "account+address")


@pytest.mark.capability("S0-17", "S0-85")
def test_a_limit_is_written_as_it_is_said() -> None:
    text = "5/5m per account+address, 20/300s per address, 50/PT1H per account"
    quotas = parse_quotas(text)
    assert quotas[0] == PAIR
    assert format_quotas(quotas) == "5/5m per account+address, 20/5m per address, 50/1h per account"
    assert parse_quotas(format_quotas(quotas)) == quotas
    assert parse_quotas(["5/5m per account+address"]) == (PAIR,)
    assert parse_quotas("off") == ()
    assert format_quotas(()) == "off"
    assert [quota.by for quota in in_order(quotas)] == ["address", "account+address", "account"]


FAULTS: dict[str, object] = {
    "is no limit": "often",
    "is no limit: write": "5/5m",
    "write 5/5m per address": "",
    "takes 1 to": "200000/5m per address",
    "is no duration": "5/5 per address",
    "whole seconds": "5/500ms per address",
    "from 1s to 31d": "5/90d per address",
    "counts per": "5/5m per planet",
    "twice": "5/5m per address, 6/5m per address",
    "nobody is signed in yet": "5/5m per user",
}


@pytest.mark.parametrize("said", FAULTS)
def test_what_is_no_limit_stops_the_start_and_says_why(said: str) -> None:
    environ = {"WATCHWORD_LIMITS__LOGIN": str(FAULTS[said])}
    with pytest.raises(ConfigurationError) as caught:
        Watchword("sqlite://", environment="development", environ=environ)
    (fault,) = caught.value.faults
    assert said in fault
    assert "WATCHWORD_LIMITS__LOGIN" in fault


def test_all_faults_are_told_at_once() -> None:
    environ = {
        "WATCHWORD_LIMITS__REFRESH": "5/5m per account",
        "WATCHWORD_LIMITS__STORE": "memcached://localhost",
        "WATCHWORD_LIMITS__FAILURE": "shrug",
        "WATCHWORD_LIMITS__LOGOUT": "5/5m per address",
    }
    with pytest.raises(ConfigurationError) as caught:
        Watchword("sqlite://", environment="development", environ=environ)
    text = str(caught.value)
    for word in ("LOGOUT is not known", "no account here", "memory:", "limits.failure"):
        assert word in text
    assert "memcached" not in text


async def test_what_is_in_force_is_printed_as_it_is_written() -> None:
    options: dict[str, Any] = {"login": "7/1m per address", "mfa": "off"}
    environ = {"WATCHWORD_LIMITS__REGISTRATION": "1/1d per address, 2/1d per account"}
    async with telling(features=[*_needed(), limits(**options)], environ=environ) as story:
        report = {each.key: each.value for each in story.auth.settings}
    assert report["limits.login"] == "7/1m per address"
    assert report["limits.mfa"] == "off"
    assert report["limits.registration"] == "1/1d per address, 2/1d per account"
    assert report["limits.refresh"] == "300/1m per address"


def _needed() -> list[Any]:
    return [each for each in minimal() if each.name != "limits"]


async def test_one_process_counts_apart_and_says_so(sqlite_url: str) -> None:
    async with counting(sqlite_url, store="memory:") as story:
        assert not story.auth.limits.is_shared
        assert story.auth.limits.is_counting_apart
    async with counting(f"{sqlite_url}2") as story:
        assert story.auth.limits.is_shared
        assert not story.auth.limits.is_counting_apart


@pytest.mark.capability("DEF-09")
async def test_several_workers_that_would_count_apart_are_not_started(sqlite_url: str) -> None:
    async with counting(sqlite_url, store="memory:") as story:
        _refuse_counting_apart(story.auth, workers=1)
        with pytest.raises(ConfigurationError, match="WATCHWORD_LIMITS__STORE"):
            _refuse_counting_apart(story.auth, workers=4)


NETWORKS = {
    "192.0.2.1": "192.0.2.1",
    "::ffff:192.0.2.1": "192.0.2.1",
    "::FFFF:C000:0201": "192.0.2.1",
    "64:ff9b::c000:201": "192.0.2.1",
    "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64",
    "2001:0DB8:0001:0002::": "2001:db8:1:2::/64",
    "2001:db8:1:2::1%eth0": "2001:db8:1:2::/64",
    "::1": "::/64",
    "": "",
    "/run/app.sock": "/run/app.sock",
}


@pytest.mark.standard("CVE row 22")
@pytest.mark.parametrize("address", NETWORKS)
def test_an_address_counts_by_its_network(address: str) -> None:
    assert network_of(address) == NETWORKS[address]


def test_headers_hold_nothing_but_their_form() -> None:
    odd = Standing(action='a"\\\n\r,ü', quota=PAIR, left=2, opens=timedelta(milliseconds=10_001))
    said = rate_headers([odd, odd])
    name = '"a____,_ per account+address"'
    assert said["RateLimit-Policy"] == ", ".join([f"{name};q=5;w=300"] * 2)
    assert said["RateLimit"] == ", ".join([f"{name};r=2;t=11"] * 2)
