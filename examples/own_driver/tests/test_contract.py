"""The driver keeps every promise of a store, between processes too."""

from pathlib import Path

import pytest

from watchword.testing.contract import StoreContract


class TestJsonFile(StoreContract):
    """Watchword's own tests of a store, on this one."""

    factory = "watchword_jsonfile:driver"

    @pytest.fixture
    def driver_url(self, tmp_path: Path) -> str:
        """A file that does not exist yet."""
        return f"jsonfile:{tmp_path / 'watchword.json'}"
