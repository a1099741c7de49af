"""The examples do what they say."""

import csv
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import List

import pytest
import yaml
from support.mosquitto import Broker, Subscriber, wait_until

pytestmark = pytest.mark.integration

EXAMPLES = Path(__file__).parents[3] / "examples"
TOPIC = "edgecount/lobby/door/event"


def payload(n: int) -> bytes:
    event = {
        "v": 1, "id": f"{n:026d}", "seq": n, "ts": 1.0, "kind": "line", "line": "a",
        "direction": "in", "track": n, "recovered": False,
    }  # fmt: skip
    return json.dumps(event).encode()


def rows(path: Path) -> List[int]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [int(row["seq"]) for row in csv.DictReader(file)]


def start(broker: Broker, path: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, EXAMPLES / "subscriber.py", "--port", str(broker.port), "--file", path]
    )


def test_the_subscriber_keeps_every_event_once_over_its_restarts(
    broker: Broker, tmp_path: Path
) -> None:
    path = tmp_path / "counts.csv"
    publisher = Subscriber(broker.port, "nothing", "publisher")
    process = start(broker, path)
    wait_until(lambda: "edgecount/+/+/event" in broker.log.read_text())
    for n in (1, 2, 2, 1, 3):
        publisher.publish(TOPIC, payload(n))
    wait_until(lambda: rows(path) == [1, 2, 3])
    process.kill()
    process.wait()
    for n in (3, 4, 5):
        publisher.publish(TOPIC, payload(n))
    process = start(broker, path)
    wait_until(lambda: rows(path) == [1, 2, 3, 4, 5])
    time.sleep(0.2)
    process.kill()
    process.wait()
    assert rows(path) == [1, 2, 3, 4, 5]
    publisher.close()


def test_the_snippets_are_well_formed() -> None:
    nodes = json.loads((EXAMPLES / "node-red.json").read_text())
    ids = {node["id"] for node in nodes}
    for node in nodes:
        for wire in node.get("wires", []):
            assert set(wire) <= ids
    parsed = yaml.safe_load((EXAMPLES / "home-assistant.yaml").read_text())
    assert {sensor["unique_id"] for sensor in parsed["mqtt"]["sensor"]} == {
        "hall_occupancy",
        "entrance_in",
    }
