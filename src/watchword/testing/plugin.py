"""A pytest plugin for authors of drivers: `addopts = ["-p", "watchword.testing.plugin"]`.

It knows the markers that the contracts carry, and lets a failed assertion in them show its values.
"""

import pytest

pytest.register_assert_rewrite(
    "watchword.testing.contract",
    "watchword.testing.contract_verbs",
    "watchword.testing.feed_contract",
)


def pytest_configure(config: pytest.Config) -> None:
    """Make the markers known."""
    for name, what in (
        ("capability", "what users can do that this test shows"),
        ("invariant", "the rule of Watchword's that this test holds"),
        ("slow", "takes seconds"),
    ):
        config.addinivalue_line("markers", f"{name}(*rows): {what}")
