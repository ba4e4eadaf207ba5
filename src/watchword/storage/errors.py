"""What a store may answer instead of a result."""

from watchword.kernel.errors import StoreUnavailable

__all__ = ["Conflict", "SchemaBehind", "SchemaNewer", "StoreUnavailable"]


class Conflict(Exception):
    """A unique key is taken. `field` names the last field of that key."""

    def __init__(self, field: str) -> None:
        super().__init__(f"a record with this {field} exists")
        self.field = field


class SchemaBehind(Exception):
    """The database lacks what this version needs. `plan` lists the steps, as SQL or prose."""

    def __init__(self, plan: tuple[str, ...]) -> None:
        super().__init__(
            "the database is behind this version: run `watchword migrate` "
            "(`watchword migrate --plan` shows what it will do)"
        )
        self.plan = plan


class SchemaNewer(Exception):
    """The database belongs to a newer major version."""
