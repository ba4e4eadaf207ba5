"""A table of somebody else's that holds our records: is it fit, what does it lack, who is in it.

Adopting takes several transactions, so that no table is locked while a large one is read: our
columns come first, then batches of rows are filled, then what is left of them under a lock,
together with the indexes. Whatever is interrupted goes on where it stood: a row is pending while
its derived field holds nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from alembic.ddl.base import AddColumn
from sqlalchemy import (
    Column,
    Connection,
    Index,
    MetaData,
    Table,
    Text,
    and_,
    bindparam,
    delete,
    func,
    insert,
    or_,
    select,
    text,
    true,
    update,
)
from sqlalchemy.schema import CreateIndex, CreateTable, DropTable

from watchword.kernel.errors import ConfigurationError
from watchword.storage.record import Adoption, ColumnKind, Schema, final, schema_of
from watchword.storage.record import Column as Field
from watchword.stores.sql.forms import Form
from watchword.stores.sql.hosts import Host, HostColumn, host_of
from watchword.stores.sql.tables import (
    Stored,
    adopted_table,
    compared,
    conflicts,
    stored_name,
    table_of,
)

BATCH: Final = 1000
NOBODY: Final = "faulty: "
"""How the derived field of a faulty row begins. No address has a space, so it is nobody's."""

_SHOWN: Final = 5  # ids of faulty rows that are named

_POSTGRES: Final[dict[ColumnKind, dict[str, Form]]] = {
    "text": {"text": "own", "character varying": "own", "citext": "own"},
    "json": {"text": "own", "character varying": "own"},
    "integer": {"smallint": "own", "integer": "own", "bigint": "own"},
    "boolean": {"boolean": "own", "smallint": "flag", "integer": "flag", "bigint": "flag"},
    "instant": {"timestamp with time zone": "own", "timestamp without time zone": "naive"},
}


class Tables:
    """Which table holds which records, in one database."""

    def __init__(self) -> None:
        self._adopted: dict[type, Table] = {}

    def of(self, kind: type) -> Table:
        """The table of a record class."""
        if schema_of(kind).adoption is None:
            return table_of(kind)
        try:
            return self._adopted[kind]
        except KeyError:
            raise RuntimeError(f"{kind.__name__}: open the database first") from None

    def know(self, found: "Sequence[Adopted]") -> None:
        """Remember what a look at the database found."""
        self._adopted.update({each.kind: each.table for each in found})


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopted:
    """One adopted table as it stands."""

    kind: type
    schema: Schema
    adoption: Adoption
    host: Host
    table: Table  # as it will be
    others: tuple[Table, ...] = ()  # of records that name one of these

    @property
    def derived(self) -> Column[Any]:
        """The column that says whether a row is pending."""
        return self.table.c[self.adoption.derived]

    @property
    def has_derived(self) -> bool:
        """Is that column there yet?"""
        return self.derived.name in self.host.columns

    @property
    def key(self) -> Column[Any]:
        """The owner's key."""
        return self.table.c[self.schema.key[-1]]

    @property
    def columns(self) -> list[AddColumn]:
        """The statements that add what columns it lacks."""
        return [
            AddColumn(self.table.name, column, schema=self.table.schema)
            for column in self.table.columns
            if column.key not in self.adoption.columns and column.name not in self.host.columns
        ]

    @property
    def indexes(self) -> list[CreateIndex]:
        """The statements that add what indexes it lacks."""
        lacking = (each for each in self.table.indexes if each.name not in self.host.indexes)
        return [CreateIndex(each) for each in sorted(lacking, key=_by_name)]

    @property
    def is_indexed(self) -> bool:
        """Does the database already refuse two of one key?"""
        return all(each.name in self.host.indexes for each in self.table.indexes if each.unique)


def look(connection: Connection, records: Sequence[type]) -> list[Adopted]:
    """The adopted tables of these records.

    Raises:
        ConfigurationError: they cannot hold them; everything that is in the way.
    """
    found: list[Adopted] = []
    faults: list[str] = []
    chosen = {id(schema) for schema in final(records)}
    for kind in records:
        schema = schema_of(kind)
        if schema.adoption is None or id(schema) not in chosen:
            continue
        host = host_of(connection, schema.adoption.table)
        if isinstance(host, str):
            faults.append(host)
            continue
        fit = _Fitting(connection.dialect.name, schema, schema.adoption, host)
        faults.extend(fit.faults)
        if not fit.faults:
            named_by = schema.adoption.named_by
            others = [
                table_of(other)
                for other in records
                if id(schema_of(other)) in chosen and named_by in schema_of(other).columns
            ]
            found.append(replace(fit.adopted(kind), others=tuple(others)))
    if faults:
        raise ConfigurationError(faults)
    return found


class _Fitting:
    """Is a table fit to hold records, and in which form does it hold their fields?"""

    def __init__(self, dialect: str, schema: Schema, adoption: Adoption, host: Host) -> None:
        self._sqlite = dialect == "sqlite"
        self._schema = schema
        self._adoption = adoption
        self._host = host
        self._mapped: dict[str, HostColumn] = {}
        self._forms: dict[str, Form] = {}
        self.faults: list[str] = []
        self._fit()

    def adopted(self, kind: type) -> Adopted:
        """What was found."""
        host = self._host
        named = {name: column.name for name, column in self._mapped.items()}
        table = adopted_table(
            self._schema,
            self._adoption,
            self._forms,
            name=host.name,
            owner=host.owner,
            columns=named,
        )
        table.info["conflicts"] = _conflicts(self._schema, table, host)
        return Adopted(
            kind=kind, schema=self._schema, adoption=self._adoption, host=host, table=table
        )

    def _fit(self) -> None:
        table, columns = self._adoption.table, self._host.columns
        for name, wanted in self._adoption.columns.items():
            found = columns.get(wanted)
            if found is None and self._sqlite:  # where names have no case
                found = next((c for n, c in columns.items() if n.lower() == wanted.lower()), None)
            if found is None:
                self.faults.append(f"{table} has no column {wanted} to hold {name}")
                continue
            self._mapped[name] = found
            form = self._form(self._schema.columns[name], found)
            if form is None:
                self.faults.append(self._unfit(name, found))
            else:
                self._forms[name] = form
        self._check_key()
        used = {column.name for column in self._mapped.values()}
        used |= {stored_name(self._adoption, name) for name in self._schema.columns}
        for column in columns.values():
            if column.is_required and not column.is_given and column.name not in used:
                self.faults.append(
                    f"{table}.{column.name} needs a value that Watchword does not know: give the "
                    "column a default, let it be null, or map it to a field of your own that "
                    "has a default"
                )

    def _check_key(self) -> None:
        name = self._schema.key[-1]
        key = self._mapped.get(name)
        if key is None:
            return
        if not self._host.is_key(key.name):
            self.faults.append(f"{self._adoption.table}.{key.name} is no primary or unique key")
        unnumbered = self._host.numbered != key.name if self._sqlite else not key.is_given
        if self._forms.get(name) == "integer" and unnumbered:
            self.faults.append(
                f"{self._adoption.table}.{key.name}: the database gives new rows no number; make "
                + ("it INTEGER PRIMARY KEY" if self._sqlite else "it an identity column")
            )

    def _unfit(self, name: str, found: HostColumn) -> str:
        where = f"{self._adoption.table}.{found.name}"
        if found.is_made:
            return f"{where} is computed by the database: it cannot hold {name}"
        if name == self._schema.key[-1]:
            return f'{where} is {found.type}, which ids="{self._adoption.ids}" does not fit'
        return (
            f"{where} is {found.type}{' NOT NULL' if found.is_required else ''}, which cannot "
            f"hold {name}: leave {name} out of columns, and it gets a column of ours"
        )

    def _form(self, column: Field, found: HostColumn) -> Form | None:
        if found.is_made:
            return None
        if column.name == self._schema.key[-1]:
            return self._form_of_id(found)
        form = (
            _sqlite_form(column.kind, found.type)
            if self._sqlite
            else _POSTGRES.get(column.kind, {}).get(found.type)
        )
        if column.optional and found.is_required:
            return "blank" if form == "own" and column.kind == "text" else None
        return form

    def _form_of_id(self, found: HostColumn) -> Form | None:
        ids = self._adoption.ids
        if not self._sqlite:
            fits: Mapping[str, Mapping[str, Form]] = {
                "text": {"text": "own", "character varying": "own"},
                "uuid": {"uuid": "uuid"},
                "integer": {"smallint": "integer", "integer": "integer", "bigint": "integer"},
            }
            return fits[ids].get(found.type)
        if ids == "integer":
            return "integer" if "INT" in found.type else None
        if ids == "uuid" and found.type in ("CHAR(32)", "VARCHAR(32)"):
            return "hex"
        is_text = _is_text(found.type) or (ids == "uuid" and found.type == "UUID")
        return "own" if is_text else None


def _is_text(declared: str) -> bool:
    return any(part in declared for part in ("CHAR", "CLOB", "TEXT"))


def _sqlite_form(kind: ColumnKind, declared: str) -> Form | None:
    match kind:
        case "text" | "json":
            return "own" if _is_text(declared) else None
        case "integer":
            return "own" if "INT" in declared else None
        case "boolean":
            return "flag" if "BOOL" in declared or "INT" in declared else None
        case "instant":
            is_time = _is_text(declared) or declared.startswith(("DATETIME", "TIMESTAMP"))
            return "iso" if is_time else None
        case _:
            return None


def _conflicts(schema: Schema, table: Table, host: Host) -> dict[str, str]:
    """The field of each key, by the key's name and, for SQLite, by its last column."""
    fields = {column.name: column.key for column in table.columns}
    named = conflicts(schema)
    for key, columns in host.keys.items():
        known = [fields[name] for name in columns if name in fields]
        named[key] = known[-1] if known else schema.key[-1]
    for each in table.indexes:
        if each.unique:
            named[str(each.name)] = schema.unique[0][-1]
    return named | {name: str(field) for name, field in fields.items()}


# Who is in it


class _Row(NamedTuple):
    id: str
    source: Any
    is_new: bool  # never filled before: whoever had this id is gone


@dataclass(slots=True)
class Survey:
    """The pending rows of a table, and those among them that cannot be adopted."""

    pending: int = 0
    missing: list[str] = field(default_factory=list[str])
    invalid: list[str] = field(default_factory=list[str])
    shared: list[str] = field(default_factory=list[str])

    @property
    def faulty(self) -> set[str]:
        """All that cannot be adopted, by id."""
        return {*self.missing, *self.invalid, *self.shared}

    def told(self, found: Adopted) -> tuple[str, ...]:
        """What is wrong, for an operator."""
        adoption = found.adoption
        source = f"{adoption.table}.{adoption.columns[adoption.source]}"
        reasons = (
            (self.missing, f"{source} is empty"),
            (self.invalid, f"{source} is no {adoption.source} address"),
            (self.shared, f"{source} is that of another row too, but for its case or form"),
        )
        return tuple(
            f"{len(ids)} row{'s' * (len(ids) != 1)}: {why} "
            f"({found.key.name} {', '.join(ids[:_SHOWN])}{', …' * (len(ids) > _SHOWN)})"
            for ids, why in reasons
            if ids
        )


def survey(connection: Connection, found: Adopted) -> Survey:
    """Read the pending rows and judge them. Changes nothing but a temporary table.

    Raises:
        ConfigurationError: a mapped column holds what its field cannot be.
    """
    said = Survey()
    if not found.is_indexed:  # later rows may stand in no list, if their owner wants it so
        _check_values(connection, found)
    noted = Table(
        "watchword_survey",
        MetaData(),
        Column("id", Text()),
        Column("key", Stored("text")),
        prefixes=["TEMPORARY"],
    )
    if connection.dialect.name == "sqlite":  # PostgreSQL: gone with a transaction that failed
        connection.execute(text("DROP TABLE IF EXISTS temp.watchword_survey"))
    connection.execute(CreateTable(noted))
    for rows in _batches(connection, found):
        said.pending += len(rows)
        usable: list[dict[str, str]] = []
        for row in rows:
            key = _derived(found.adoption, row.source)
            if key is not None:
                usable.append({"id": row.id, "key": key})
            else:
                (said.invalid if row.source else said.missing).append(row.id)
        if usable:
            connection.execute(insert(noted), usable)
    twice = select(noted.c.key).group_by(noted.c.key).having(func.count() > 1)
    is_shared = noted.c.key.in_(twice)
    if found.has_derived:
        held = select(found.derived).where(_realm(found), found.derived.is_not(None))
        is_shared = or_(is_shared, noted.c.key.in_(held))
    shared = select(noted.c.id).where(is_shared).order_by(noted.c.key, noted.c.id)
    said.shared.extend(connection.execute(shared).scalars())
    connection.execute(DropTable(noted))
    return said


def _check_values(connection: Connection, found: Adopted) -> None:
    faults: list[str] = []
    for name in found.adoption.columns:
        column, kind = found.table.c[name], found.schema.columns[name]
        if kind.kind == "instant" and not kind.optional:
            wrong = or_(column.is_(None), compared(column).is_(None))
            many = connection.execute(
                select(func.count()).select_from(found.table).where(wrong)
            ).scalar_one()
            if many:
                faults.append(
                    f"{found.adoption.table}.{column.name} holds no time in {many} rows, so that "
                    f"they would stand in no list: fill it, or leave {name} out of columns"
                )
    if faults:
        raise ConfigurationError(faults)


def fill(connection: Connection, found: Adopted, faulty: set[str], after: str | None) -> str | None:
    """Adopt one batch of pending rows past this id; the last id, or None at the end."""
    rows = _batch(connection, found, after)
    if not rows:
        return None
    adoption, table = found.adoption, found.table
    keys = {row.id: _derived(adoption, row.source) for row in rows if row.id not in faulty}
    taken: set[str] = set()
    usable = {key for key in keys.values() if key is not None}
    if usable and found.is_indexed:  # or it would read the table a batch; `finish` looks once
        held = select(found.derived).where(_realm(found), found.derived.in_(usable))
        taken.update(connection.execute(held).scalars())
    values: list[dict[str, Any]] = []
    for row in rows:
        key = keys.get(row.id)
        if row.id in faulty:
            key = NOBODY + row.id
        elif key is None or key in taken:
            continue  # it came after the survey: judged under the lock
        else:
            taken.add(key)
        given = {f"new_{name}": value for name, value in adoption.fill().items()}
        values.append({"this": row.id, "read": row.source, "derived": key, **given})
    if values:
        connection.execute(_filling(found, table), values)
    _forget_former(connection, found, [row.id for row in rows if row.is_new])
    return rows[-1].id


def _forget_former(connection: Connection, found: Adopted, ids: list[str]) -> None:
    """Remove what our records say of who had these ids before, and whom their owner deleted.

    Or a new row with a number that was used before would inherit a password.
    """
    named_by = found.adoption.named_by
    for table in found.others:
        if ids:
            connection.execute(
                delete(table).where(
                    table.c["realm"] == found.adoption.realm, table.c[named_by].in_(ids)
                )
            )


def _filling(found: Adopted, table: Table) -> Any:
    adoption = found.adoption
    source = table.c[adoption.source]
    new: dict[str, Any] = {adoption.derived: bindparam("derived", type_=found.derived.type)}
    for name in adoption.fill():
        if name in adoption.columns:
            continue
        column = table.c[name]
        given = bindparam(f"new_{name}", type_=column.type)
        old = column.op("+")(1) if name == adoption.raised else column
        new[name] = func.coalesce(old, given)
    new |= {n: value for n, value in adoption.reset.items() if n not in adoption.columns}
    return (
        update(table)
        .where(
            found.key == bindparam("this", type_=found.key.type),
            found.derived.is_(None),
            # Changed since it was read: then it is still pending.
            # As it came: what no user may hold, such as NUL, stands in others' tables.
            source.is_not_distinct_from(bindparam("read", type_=Text())),
        )
        .values(new)
    )


def finish(connection: Connection, found: Adopted, *, skip_faulty: bool) -> Survey | None:
    """Adopt what is left while nobody else writes; what is in the way, if it must not be."""
    if connection.dialect.name == "postgresql":
        name = connection.dialect.identifier_preparer.format_table(found.table)
        connection.execute(text(f"LOCK TABLE {name} IN SHARE ROW EXCLUSIVE MODE"))
    said = survey(connection, found)
    if not found.is_indexed:
        said.shared.extend(_doubled(connection, found))
    if said.faulty and not skip_faulty:
        return said
    if said.shared:
        _refuse(connection, found, said.shared)
    after: str | None = None
    faulty = said.faulty
    while (after := fill(connection, found, faulty, after)) is not None:
        pass
    return None


def _doubled(connection: Connection, found: Adopted) -> list[str]:
    """Rows that were filled with one key: their owner's code changed them meanwhile."""
    twice = (
        select(found.derived)
        .where(_realm(found), found.derived.is_not(None))
        .group_by(found.derived)
        .having(func.count() > 1)
    )
    rows = select(found.key).where(_realm(found), found.derived.in_(twice)).order_by(found.key)
    return list(connection.execute(rows).scalars())


def _refuse(connection: Connection, found: Adopted, ids: list[str]) -> None:
    statement = (
        update(found.table)
        .where(
            found.key == bindparam("this", type_=found.key.type),
            found.derived.is_not(None),
        )
        .values({found.adoption.derived: bindparam("derived", type_=found.derived.type)})
    )
    connection.execute(statement, [{"this": each, "derived": NOBODY + each} for each in ids])


def _derived(adoption: Adoption, source: Any) -> str | None:
    if not isinstance(source, str):
        return None
    try:
        return adoption.derive(source)
    except ValueError:
        return None


def _batches(connection: Connection, found: Adopted) -> Iterator[list[_Row]]:
    after: str | None = None
    while rows := _batch(connection, found, after):
        yield rows
        after = rows[-1].id


def _batch(connection: Connection, found: Adopted, after: str | None) -> list[_Row]:
    source = found.table.c[found.adoption.source]
    raised = found.table.c[found.adoption.raised]
    has_raised = raised.name in found.host.columns
    is_new = raised.is_(None) if has_raised else true()
    asked: Any = select(found.key, source, is_new).where(found.key.is_not(None))
    if found.has_derived:
        # Rows of other realms are ours, and full; and there is an index by realm.
        asked = asked.where(_realm(found), found.derived.is_(None))
    if after is not None:
        asked = asked.where(found.key > bindparam("after", after, type_=found.key.type))
    rows: Any = connection.execute(asked.order_by(found.key).limit(BATCH))
    return [_Row(row[0], row[1], bool(row[2])) for row in rows]


def _realm(found: Adopted) -> Any:
    return and_(found.table.c.realm == found.adoption.realm)


def _by_name(index: Index) -> str:
    return str(index.name)
