"""A ledger of every earlier layout becomes the present one and loses nothing."""

import sqlite3
from pathlib import Path
from typing import List

import pytest

from edgecount.config import LedgerSettings
from edgecount.count import _schema
from edgecount.count._store import Reader
from edgecount.count.ledger import Ledger
from edgecount.count.totals import PlaceTotals
from edgecount.records import CountEvent, LineTotals

NEWEST = len(_schema.MIGRATIONS)


def make(path: Path, version: int) -> sqlite3.Connection:
    """A file as the edgecount of that layout left it."""
    connection = sqlite3.connect(str(path), isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    _schema.migrate(connection, _schema.MIGRATIONS[:version])
    return connection


def fill_version_1(connection: sqlite3.Connection) -> None:
    for statement in (
        "INSERT INTO counter VALUES (1, 'line', 'door', 'entrance', 7, 3)",
        "INSERT INTO counter VALUES (2, 'zone', 'door', 'hall', 2, 1)",
        "INSERT INTO event VALUES (41, '01M868XW6HGFHMY6J26FE8XRWY', 1e9, 1, 0, 5, 6, 0.0)",
        "INSERT INTO event VALUES (42, '01M868XW6HGFHMY6J26FE8XRWZ', 1e9, 2, 1, 5, 6, 2.5)",
        "INSERT INTO place VALUES ('hall', 4, 7, 3, 6)",
        "INSERT INTO meta VALUES ('since', 1795521600.0)",
        "INSERT INTO meta VALUES ('published', 41)",
    ):
        connection.execute(statement)


def test_version_1_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    connection = make(path, 1)
    fill_version_1(connection)
    connection.close()
    ledger = Ledger.open(LedgerSettings(path=path))
    assert ledger.degraded is None
    assert ledger.totals("door").lines == {"entrance": LineTotals(7, 3)}
    assert ledger.totals("door").zones == {"hall": LineTotals(2, 1)}
    assert ledger.places() == {"hall": PlaceTotals(4, 7, 3, 6)}
    assert ledger.since == 1795521600.0
    (unpublished,) = ledger.fetch(0, 10)
    assert (unpublished.seq, unpublished.dwell_s) == (42, 2.5)
    ledger.record([CountEvent("line", "door", "entrance", "in", 1, 1, 1e9)])
    ledger.close()
    reader = Reader(path)
    reader.check()
    assert reader.newest()[0] == 43
    # Old events are no news for the figures.
    assert reader.meta()["rolled"] == 42
    reader.close()


def test_every_step_is_one_transaction(tmp_path: Path) -> None:
    """A step that fails leaves the file at the version before."""
    path = tmp_path / "ledger.db"
    connection = make(path, 1)
    fill_version_1(connection)

    def fails(c: sqlite3.Connection) -> None:
        c.execute("DROP TABLE event")
        raise sqlite3.OperationalError("database or disk is full")

    with pytest.raises(sqlite3.OperationalError):
        _schema.migrate(connection, [*_schema.MIGRATIONS[:1], fails])
    assert connection.execute("PRAGMA user_version").fetchone()[0] == 1
    assert connection.execute("SELECT count(*) FROM event").fetchone()[0] == 2
    connection.close()


@pytest.mark.parametrize("version", range(NEWEST + 1))
def test_all_versions_end_alike(tmp_path: Path, version: int) -> None:
    def layout(path: Path) -> List[str]:
        reader = sqlite3.connect(str(path))
        rows = reader.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()
        reader.close()
        return [f"{name}: {sql}" for name, sql in rows]

    old, new = tmp_path / "old.db", tmp_path / "new.db"
    connection = make(old, version)
    assert _schema.migrate(connection) == version
    connection.close()
    make(new, NEWEST).close()
    assert layout(old) == layout(new)


def test_a_newer_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    connection = make(tmp_path / "ledger.db", NEWEST)
    connection.execute(f"PRAGMA user_version = {NEWEST + 1}")
    with pytest.raises(_schema.NewerSchemaError, match=f"layout {NEWEST + 1}"):
        _schema.migrate(connection)
    connection.close()
