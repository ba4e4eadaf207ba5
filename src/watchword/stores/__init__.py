"""Drivers. They know records, never features; each is imported when a URL asks for it."""
