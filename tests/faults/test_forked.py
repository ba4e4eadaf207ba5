"""An App that is forked after its start: each process follows the feed by itself."""

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.faults.places import Place
from tests.faults.victim import ROOT

ENDS_IN = 120.0  # seconds


@pytest.mark.slow
@pytest.mark.invariant("I-06", "I-08")
async def test_parent_and_child_hear_of_each_other_and_share_no_connection(
    place: Place, say: Callable[[str], None]
) -> None:
    where = [place.database, *([] if place.sessions is None else [place.sessions])]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.faults.forked", *where),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    try:
        async with asyncio.timeout(ENDS_IN):
            said, failed = await process.communicate()
    except TimeoutError:
        process.kill()
        said, failed = await process.communicate()
    assert process.returncode == 0, failed.decode()
    assert b"Traceback" not in failed, failed.decode()
    found: dict[str, Any] = json.loads(said)
    child, parent = found["heard by the child"], found["heard by the parent"]
    heard = [*child, *parent, found["heard after the child"]]
    assert None not in heard, found
    say(
        f"{place.name} forked: the child heard within {max(child):.3f} s, "
        f"the parent within {max(parent):.3f} s"
    )
    assert max(heard) <= 2.0
