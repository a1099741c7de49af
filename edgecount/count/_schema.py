"""The layout of the ledger's file, and how an older layout becomes the present one."""

import sqlite3
from typing import Callable, Sequence

Migration = Callable[[sqlite3.Connection], None]

# "EDGC": file(1) and sqlite3's own tools show whose file it is.
APPLICATION_ID = 0x45444743


class NewerSchemaError(Exception):
    """The file was written by a newer edgecount."""


class ForeignFileError(Exception):
    """The file is an SQLite database, but not a ledger."""


def claim(connection: sqlite3.Connection) -> None:
    """Make sure that the file is new or a ledger.

    Raises:
        ForeignFileError: It is another program's; it was not touched.
    """
    owner = connection.execute("PRAGMA application_id").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if owner != APPLICATION_ID and (owner or tables):
        raise ForeignFileError("it is an SQLite file of another program")


def _create(connection: sqlite3.Connection) -> None:
    """Version 1: events and running totals."""
    connection.execute(
        "CREATE TABLE counter (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, camera TEXT NOT NULL,"
        " name TEXT NOT NULL, into_ INTEGER NOT NULL DEFAULT 0, out_ INTEGER NOT NULL DEFAULT 0,"
        " UNIQUE (kind, camera, name))"
    )
    # outward: 0 is in (entered), 1 is out (left).
    connection.execute(
        "CREATE TABLE event (seq INTEGER PRIMARY KEY, id TEXT NOT NULL, ts REAL NOT NULL,"
        " counter INTEGER NOT NULL, outward INTEGER NOT NULL, track INTEGER NOT NULL,"
        " frame INTEGER NOT NULL, dwell_s REAL NOT NULL)"
    )
    connection.execute(
        "CREATE TABLE place (name TEXT PRIMARY KEY, occupancy INTEGER NOT NULL,"
        " into_ INTEGER NOT NULL, out_ INTEGER NOT NULL, peak INTEGER NOT NULL) WITHOUT ROWID"
    )
    connection.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID")


def _add_aggregates(connection: sqlite3.Connection) -> None:
    """Version 2: figures per minute, hour and day, and what places have not put there yet."""
    connection.execute(
        "CREATE TABLE aggregate (period INTEGER NOT NULL, start INTEGER NOT NULL,"
        " counter INTEGER NOT NULL, into_ INTEGER NOT NULL, out_ INTEGER NOT NULL,"
        " peak INTEGER NOT NULL, total INTEGER NOT NULL, samples INTEGER NOT NULL,"
        " PRIMARY KEY (period, start, counter)) WITHOUT ROWID"
    )
    connection.execute("ALTER TABLE place ADD COLUMN new_into INTEGER NOT NULL DEFAULT 0")
    connection.execute("ALTER TABLE place ADD COLUMN new_out INTEGER NOT NULL DEFAULT 0")
    # What happened before has no figures; they begin with the next event.
    connection.execute(
        "INSERT OR REPLACE INTO meta SELECT 'rolled', coalesce(max(seq), 0) FROM event"
    )


def _add_heat(connection: sqlite3.Connection) -> None:
    """Version 3: person-seconds per camera, hour and cell of the picture."""
    connection.execute(
        "CREATE TABLE heat (hour INTEGER NOT NULL, camera TEXT NOT NULL, cells BLOB NOT NULL,"
        " PRIMARY KEY (hour, camera)) WITHOUT ROWID"
    )


# One entry per version; an entry is never changed once it was released, only followed.
MIGRATIONS: Sequence[Migration] = (_create, _add_aggregates, _add_heat)


def migrate(connection: sqlite3.Connection, migrations: Sequence[Migration] = MIGRATIONS) -> int:
    """Bring the file to the newest layout, one transaction per version.

    Returns:
        The version that the file had before; 0 for a new one.

    Raises:
        NewerSchemaError: The file is newer than this program; it was not touched.
        sqlite3.Error: A step failed and was rolled back.
    """
    found = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if found > len(migrations):
        raise NewerSchemaError(
            f"it has layout {found}, this edgecount knows layouts up to {len(migrations)}"
        )
    for version in range(found, len(migrations)):
        connection.execute("BEGIN IMMEDIATE")
        try:
            migrations[version](connection)
            connection.execute(f"PRAGMA user_version = {version + 1}")
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
    return found
