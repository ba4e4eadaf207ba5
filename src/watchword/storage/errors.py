"""What a store may answer instead of a result."""

from watchword.kernel.errors import StoreUnavailable

__all__ = [
    "Conflict",
    "FaultyRows",
    "Referenced",
    "SchemaBehind",
    "SchemaNewer",
    "StoreUnavailable",
]


class Conflict(Exception):
    """A unique key is taken. `field` names the last field of that key."""

    def __init__(self, field: str) -> None:
        super().__init__(f"a record with this {field} exists")
        self.field = field


class Referenced(ValueError):
    """A foreign key of the application's own forbids it: other rows point at this one."""

    def __init__(self) -> None:
        super().__init__("a foreign key of the application's own forbids it")


class SchemaBehind(Exception):
    """The database lacks what this version needs. `plan` lists the steps, as SQL or prose."""

    def __init__(self, plan: tuple[str, ...]) -> None:
        super().__init__(
            "the database is behind this version: run `watchword migrate` "
            "(`watchword migrate --plan` shows what it will do)"
        )
        self.plan = plan


class FaultyRows(SchemaBehind):
    """Rows of an adopted table cannot be users; nothing was changed because of them.

    `plan` says how many and which, by id: never what they hold.
    """

    def __init__(self, plan: tuple[str, ...]) -> None:
        super().__init__(plan)
        found = "\n".join(f"  - {each}" for each in plan)
        remedy = "mend them, or let them be nobody's with `watchword migrate --skip-faulty`"
        self.args = (f"rows that cannot be users; {remedy}:\n{found}",)


class SchemaNewer(Exception):
    """The database belongs to a newer major version."""
