"""Loads the project's own pytest plugin, wherever pytest was started from."""

pytest_plugins = ["tests.plugin"]
