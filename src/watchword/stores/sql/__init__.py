"""SQLite and PostgreSQL, through SQLAlchemy Core."""

from watchword.stores.sql.driver import SqlDriver, driver
from watchword.stores.sql.tables import tables_into

__all__ = ["SqlDriver", "driver", "tables_into"]
