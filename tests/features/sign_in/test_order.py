"""The order of sign-in steps: declared, the same however features come, or no start at all."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.features.sign_in.guests import Step, stepping
from tests.told import ADA, telling
from watchword.features.sign_in import SignIns
from watchword.kernel.attempts import Attempts
from watchword.kernel.errors import ConfigurationError
from watchword.testing.story import without_limits


def chained(steps: list[Step]) -> list[str]:
    """The order that sign-in asks these steps in."""
    nothing: Any = None
    sign_ins = SignIns(
        store=nothing,
        settings=nothing,
        clock=nothing,
        users=nothing,
        sessions=nothing,
        steps=steps,
        proofs=(),
        attempts=Attempts(()),
    )
    return [each.step for each in sign_ins.chain()]


@st.composite
def declared(draw: st.DrawFn) -> list[Step]:
    """Steps of which each may come after some before it, or after some that are not there."""
    names = draw(st.lists(st.text("abcdef", min_size=1, max_size=3), unique=True, max_size=8))
    return [
        Step(
            step=name,
            after=tuple(draw(st.sets(st.sampled_from([*names[:place], "missing"]), max_size=4))),
        )
        for place, name in enumerate(names)
    ]


@pytest.mark.capability("S0-43")
@given(declared(), st.randoms(use_true_random=False))
def test_steps_come_after_what_they_name_however_they_are_registered(
    steps: list[Step], chance: random.Random
) -> None:
    order = chained(steps)
    shuffled = list(steps)
    chance.shuffle(shuffled)
    assert chained(shuffled) == order
    assert sorted(order) == sorted(each.step for each in steps)
    for each in steps:
        for earlier in set(each.after) & set(order):
            assert order.index(earlier) < order.index(each.step)


@given(declared().filter(bool), st.data())
def test_a_circle_is_no_order(steps: list[Step], data: st.DataObject) -> None:
    first = steps[0]
    last = data.draw(st.sampled_from(steps))
    path = Step(step="through", after=(last.step,))
    last.after = (*last.after, first.step) if last is not first else last.after
    first.after = (*first.after, "through")
    with pytest.raises(ConfigurationError, match="wait for one another"):
        chained([*steps, path])


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([Step(step="a"), Step(step="a")], "of one name"),
        ([Step(step="a", after=("b",)), Step(step="b", after=("a",))], "wait for one another: a"),
        ([Step(step="a", after=("a",))], "wait for one another: a"),
        ([Step(step="verified_address")], "of one name"),
    ],
)
async def test_steps_without_an_order_stop_the_start(steps: list[Step], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        async with telling(features=[*without_limits(), *stepping(*steps)]):
            pass


async def test_a_sign_in_asks_them_in_that_order_whatever_the_order_of_features() -> None:
    for seed in range(2):
        seen: list[str] = []
        features = [
            *stepping(
                Step(step="last", after=("middle", "verified_address"), seen=seen),
                Step(step="middle", after=("zero",), seen=seen),
                Step(step="zero", seen=seen),
            ),
            *without_limits(),
        ]
        random.Random(seed).shuffle(features)
        async with telling(features=features) as story:
            await story.register(ADA)
            await story.log_in(ADA)
        assert seen == ["zero", "middle", "last"]
