"""A folder to run commands in."""

from pathlib import Path

import pytest

from tests.cli.command import Folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """An empty folder, in production as by default."""
    return Folder(path=tmp_path)
