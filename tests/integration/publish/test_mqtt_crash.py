"""A device that is killed again and again publishes every committed event, once in effect."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import List

import pytest
from support.mosquitto import Broker, Subscriber, wait_until

from edgecount.count._store import Reader

pytestmark = pytest.mark.integration

TESTS = Path(__file__).parents[2]
# The thorough run: EDGECOUNT_CRASHES=200.
CRASHES = int(os.environ.get("EDGECOUNT_CRASHES", "8"))


def start(path: Path, port: int, seed: int, count: int) -> subprocess.Popen:
    return subprocess.Popen(
        [
            sys.executable, TESTS / "support" / "publishing_child.py",
            str(path), str(port), str(seed), str(count),
        ],
        env={**os.environ, "PYTHONPATH": f"{TESTS}:{TESTS.parent}"},
        stdout=subprocess.DEVNULL,
    )  # fmt: skip


def test_kill_9_while_publishing(tmp_path: Path, broker: Broker) -> None:
    path = tmp_path / "ledger.db"
    subscriber = Subscriber(broker.port, "edgecount/lobby/door/event")
    rng = random.Random(5)
    for crash in range(CRASHES):
        seen = len(subscriber.messages)
        device = start(path, broker.port, crash, 100_000)
        wait_until(lambda seen=seen: len(subscriber.messages) > seen, 20.0, "events")
        time.sleep(rng.random() * 0.3)
        device.kill()
        device.wait()
    device = start(path, broker.port, 999, 50)
    assert device.wait(60) == 0
    reader = Reader(path)
    committed = [(e.seq, e.id) for e in reader.events(0, 10_000_000)]
    reader.close()
    wait_until(lambda: subscriber.messages[-1].json()["seq"] == committed[-1][0])
    kept: List[object] = []
    ids = set()
    for message in subscriber.messages:
        event = message.json()
        if event["id"] not in ids:
            ids.add(event["id"])
            kept.append((event["seq"], event["id"]))
    assert kept == committed
    subscriber.close()
