"""kill -9 at random moments, and power cuts that lose what was not synced."""

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional

import pytest
from support.power_cut import PowerCut

from edgecount.count._store import Reader
from edgecount.records import CountEvent

pytestmark = pytest.mark.integration

CHILD = Path(__file__).parents[2] / "support" / "ledger_child.py"
ROOT = Path(__file__).parents[3]
# The thorough run: EDGECOUNT_CRASHES=200.
CRASHES = int(os.environ.get("EDGECOUNT_CRASHES", "15"))
COMMIT_MS = 20
# On a busy machine a commit may take longer than its interval.
SLACK_S = 1.0


class Told(NamedTuple):
    """What a child said before it died."""

    restored: int
    recorded_at: List[float]
    published: Dict[int, str]
    died_at: float


def run_and_kill(path: Path, seed: int, environ: Optional[Dict[str, str]] = None) -> Told:
    rng = random.Random(seed)
    child = subprocess.Popen(
        [sys.executable, str(CHILD), str(path), str(seed), str(COMMIT_MS), "yes"],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, **(environ or {}), "PYTHONPATH": str(ROOT)},
    )
    assert child.stdout is not None
    first = child.stdout.readline().decode()
    assert first.startswith("restored"), first
    deadline = time.monotonic() + rng.random() * 0.5
    output = bytearray()
    os.set_blocking(child.stdout.fileno(), False)
    while time.monotonic() < deadline:
        output += child.stdout.read() or b""
        time.sleep(0.002)
    died_at = time.monotonic()
    child.send_signal(signal.SIGKILL)
    child.wait()
    os.set_blocking(child.stdout.fileno(), True)
    output += child.stdout.read()
    child.stdout.close()
    recorded: List[float] = []
    published: Dict[int, str] = {}
    for line in output.decode().split("\n")[:-1]:
        word, *rest = line.split()
        if word == "recorded":
            recorded.append(float(rest[1]))
        elif word == "published":
            published[int(rest[0])] = rest[1]
    return Told(int(first.split()[1]), recorded, published, died_at)


class Held(NamedTuple):
    """What the ledger's file holds."""

    events: List[CountEvent]
    total: int
    place_in: int
    place_out: int


def look(path: Path) -> Held:
    """Open a copy, since opening it recovers and so changes the file."""
    with tempfile.TemporaryDirectory() as copy:
        for part in path.parent.glob(path.name + "*"):
            if not part.name.endswith("-shm"):
                shutil.copy(part, copy)
        return _look(Path(copy) / path.name)


def _look(path: Path) -> Held:
    reader = Reader(path)
    reader.check()
    events = reader.events(0, 10_000_000)
    totals = reader.totals()
    hall = reader.places().get("hall")
    reader.close()
    for key, total in totals.items():
        ways = [e.direction for e in events if e.name == key.name]
        assert (total.into, total.out) == (ways.count("in"), ways.count("out"))
    return Held(
        events,
        sum(t.into + t.out for t in totals.values()),
        hall.into if hall else 0,
        hall.out if hall else 0,
    )


def events_left(path: Path) -> List[CountEvent]:
    """The events that can be read, from whatever is left."""
    try:
        return look(path).events
    except (sqlite3.Error, AssertionError):
        return []


def check(held: Held, before: int, told: Told, published: Dict[int, str]) -> None:
    # Totals are those of the events, and so are places: one transaction.
    assert held.total == len(held.events) == held.place_in + held.place_out
    assert [e.seq for e in held.events] == list(range(1, len(held.events) + 1))
    # Nothing was published that is not in it.
    ids = {e.seq: e.id for e in held.events}
    assert {seq: ids.get(seq) for seq in published} == published
    # Nothing older than a commit interval is missing, and nothing was made up.
    new = held.total - before
    due = sum(1 for at in told.recorded_at if at < told.died_at - COMMIT_MS / 1000.0 - SLACK_S)
    assert due <= new <= len(told.recorded_at)


def test_kill_9_at_random_moments(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    published: Dict[int, str] = {}
    before = 0
    for crash in range(CRASHES):
        told = run_and_kill(path, crash)
        assert told.restored == before
        published.update(told.published)
        held = look(path)
        check(held, before, told, published)
        before = held.total
    assert before > CRASHES


@pytest.mark.parametrize("shape", ["drop", "some", "torn"])
def test_power_cut_loses_only_what_was_not_committed(tmp_path: Path, shape: str) -> None:
    """The disk keeps what was synced, and of the rest nothing, some writes, or torn ones."""
    cut = PowerCut(tmp_path)
    path = cut.folder / "ledger.db"
    published: Dict[int, str] = {}
    before = 0
    for crash in range(max(3, CRASHES // 3)):
        told = run_and_kill(path, 1000 + crash, cut.environ())
        published.update(told.published)
        cut.happen(shape, random.Random(crash))
        held = look(path)
        assert held.total >= before
        check(held, before, told, published)
        before = held.total
    assert before > 0


def test_the_power_cut_harness_catches_a_ledger_that_does_not_sync(tmp_path: Path) -> None:
    """Without fsync the same check must fail, or it would prove nothing."""
    cut = PowerCut(tmp_path)
    path = cut.folder / "ledger.db"
    lost = 0
    for crash in range(4):
        told = run_and_kill(path, 2000 + crash, cut.environ(ignore_sync=True))
        cut.happen("drop", random.Random(crash))
        held = {e.seq for e in events_left(path)}
        lost += len(set(told.published) - held)
        cut.reset()
    assert lost > 0
