"""A disk that is really full: a small tmpfs, which takes root to mount."""

import contextlib
import subprocess
import time
from pathlib import Path
from typing import Iterator

import pytest

from edgecount.config import LedgerSettings
from edgecount.count.ledger import Ledger
from edgecount.records import CountEvent, LineTotals

pytestmark = pytest.mark.integration


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", folder], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a tmpfs takes root")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def crossings(start: int, count: int) -> list:
    return [
        CountEvent("line", "door", "entrance", "in", n, n, time.time())
        for n in range(start, start + count)
    ]


def fill(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)


def test_a_full_disk_stops_no_count_and_what_was_missed_is_written(small_disk: Path) -> None:
    ledger = Ledger.open(LedgerSettings(path=small_disk / "ledger.db", commit_ms=5))
    ballast = small_disk / "ballast"
    ledger.record(crossings(0, 10))
    assert ledger.flush()
    fill(ballast)
    total = 10
    while ledger.degraded is None:
        ledger.record(crossings(total, 200))
        total += 200
        ledger.flush()
        assert total < 20_000
    assert "free space" in ledger.degraded
    ledger.record(crossings(total, 50))
    total += 50
    ledger.flush()
    assert ledger.totals("door").lines == {"entrance": LineTotals(total, 0)}
    assert [e.track for e in ledger.fetch(0, 100_000)] == list(range(total))
    ballast.unlink()
    ledger.flush()
    assert ledger.degraded is None
    ledger.close()
    again = Ledger.open(LedgerSettings(path=small_disk / "ledger.db"))
    assert again.totals("door").lines == {"entrance": LineTotals(total, 0)}
    assert [e.seq for e in again.fetch(0, 100_000)] == list(range(1, total + 1))
    again.close()


def test_a_read_only_disk_is_named_and_used_once_it_is_not(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    ledger = Ledger.open(LedgerSettings(path=small_disk / "ledger.db", commit_ms=5))
    assert "write permission" in (ledger.degraded or "")
    ledger.record(crossings(0, 10))
    ledger.flush()
    assert ledger.totals("door").lines == {"entrance": LineTotals(10, 0)}
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    ledger.flush()
    assert ledger.degraded is None
    ledger.close()
