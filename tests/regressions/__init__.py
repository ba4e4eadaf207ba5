"""Attacks that once worked here. Each test names what it prevents."""
