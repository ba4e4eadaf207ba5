"""What is past its time goes, and nothing else does."""

from datetime import timedelta

import pytest

from tests.told import telling
from watchword.features.sessions import Session


@pytest.mark.capability("S1-34", "S0-33")
@pytest.mark.invariant("I-05")
async def test_purging_deletes_what_is_past_its_time_and_nothing_else(database_url: str) -> None:
    async with telling(database_url) as story:
        await story.join()
        old = await story.log_in()
        story.clock.advance(timedelta(days=20))
        young = await story.log_in()
        assert (await story.auth.purge())["session"] == 0
        # The old one was over after seven days; its row stays until its family could not live
        # on, and a day longer, so that a replay is noticed.
        story.clock.advance(timedelta(days=12))
        assert (await story.auth.purge())["session"] == 1
        assert await story.auth.store.count(Session) == 1
        story.clock.advance(timedelta(days=40))
        assert (await story.auth.purge())["session"] == 1
        assert await story.auth.store.count(Session) == 0
        assert old != young
