"""Brokers that go and come, cables that are cut: nothing lost, nothing twice, nothing late."""

import os
import random
import time
from pathlib import Path
from typing import Callable, List

import psutil
import pytest
from support.mosquitto import Broker, Proxy, Received, Subscriber, wait_until
from support.mqtt import settings_for

from edgecount.config import LedgerSettings
from edgecount.count.ledger import Ledger
from edgecount.publish.mqtt import MqttSink, create
from edgecount.records import CountEvent, LineTotals, Snapshot

pytestmark = pytest.mark.integration

MakeSink = Callable[..., MqttSink]
EVENTS = "edgecount/lobby/door/event"
STATE = "edgecount/lobby/door/state"
# The hour: EDGECOUNT_OUTAGE_EVENTS=180000 (50 per second).
OUTAGE_EVENTS = int(os.environ.get("EDGECOUNT_OUTAGE_EVENTS", "4000"))


def crossings(count: int, ts: float = 1e9) -> List[CountEvent]:
    return [CountEvent("line", "door", "entrance", "in", n, n, ts + n / 50.0) for n in range(count)]


def without_known_ids(messages: List[Received]) -> List[int]:
    """The sequence numbers that a subscriber keeps who drops ids that he has seen."""
    seen, kept = set(), []
    for message in messages:
        event = message.json()
        if event["id"] not in seen:
            seen.add(event["id"])
            kept.append(int(str(event["seq"])))
    return kept


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
def test_cuts_in_the_middle_of_packets(
    broker: Broker, make_sink: MakeSink, ledger: Ledger, protocol: str
) -> None:
    rng = random.Random(3)
    proxy = Proxy(broker.port)
    subscriber = Subscriber(broker.port, EVENTS)
    sink = make_sink(proxy.port, protocol=protocol)
    total = 0
    for _ in range(6):
        wait_until(lambda: sink.connected, 30.0)
        proxy.cut_after(rng.randrange(200, 20_000))
        ledger.record(crossings(120))
        total += 120
        ledger.flush()
        wait_until(lambda: not sink.connected or ledger.backlog == 0, 10.0)
        sink._backoff.worked()  # the waits are tested elsewhere
    wait_until(lambda: ledger.seq == total and ledger.backlog == 0, 40.0, "the last event")
    wait_until(lambda: len(without_known_ids(subscriber.messages)) == total)
    assert without_known_ids(subscriber.messages) == list(range(1, total + 1))
    assert proxy.accepted > 3
    subscriber.close()
    proxy.close()


@pytest.mark.parametrize("persistent", [False, True])
def test_a_broker_that_is_restarted_again_and_again(
    tmp_path: Path, make_sink: MakeSink, ledger: Ledger, persistent: bool
) -> None:
    broker = Broker(tmp_path, persistent=persistent).start()
    subscriber = Subscriber(broker.port, EVENTS, durable=persistent)
    proxy = Proxy(broker.port)
    sink = make_sink(proxy.port)
    total = 0
    for _ in range(3):
        wait_until(lambda: sink.connected, 20.0)
        ledger.record(crossings(50))
        total += 50
        # What a broker without persistence has acknowledged and not delivered dies with it:
        # nobody can bring that back, so it is given the time to deliver.
        wait_until(lambda total=total: len(without_known_ids(subscriber.messages)) == total)
        proxy.refusing = True
        proxy.cut()
        broker.stop() if persistent else broker.kill()
        ledger.record(crossings(50))
        total += 50
        ledger.flush()
        broker.start()
        returned = len(broker.log.read_text().split("test-subscriber"))
        wait_until(lambda n=returned: len(broker.log.read_text().split("test-subscriber")) > n)
        time.sleep(0.3)
        proxy.refusing = False
        sink._backoff.worked()
        wait_until(lambda total=total: len(without_known_ids(subscriber.messages)) == total, 20.0)
    assert without_known_ids(subscriber.messages) == list(range(1, total + 1))
    subscriber.close()
    proxy.close()
    broker.kill()


def test_a_long_outage_is_caught_up_while_states_stay_live(tmp_path: Path, broker: Broker) -> None:
    ledger = Ledger.open(LedgerSettings(path=tmp_path / "ledger.db"))
    settings = settings_for(broker.port, catch_up_per_s=20_000.0)
    sink = create(settings, ledger)
    ledger.listen(on_committed=lambda _events: sink.notify())
    memory = psutil.Process()
    ledger.record(crossings(OUTAGE_EVENTS))
    assert ledger.flush(60.0)
    before = memory.memory_info().rss
    events = Subscriber(broker.port, EVENTS)
    states = Subscriber(broker.port, STATE, "states")
    sink.start()
    wait_until(lambda: sink.connected)
    most = before
    while ledger.backlog:
        sink.publish_state(Snapshot("door", time.monotonic(), 1, 1, {"entrance": LineTotals()}))
        most = max(most, memory.memory_info().rss)
        time.sleep(0.02)
    sink.stop()
    ledger.close()
    wait_until(lambda: len(events.messages) >= OUTAGE_EVENTS, 30.0)
    got = [m.json() for m in events.messages]
    assert [e["seq"] for e in got] == list(range(1, OUTAGE_EVENTS + 1))
    assert all(e["recovered"] for e in got)
    ages = sorted(m.at - float(str(m.json()["ts"])) for m in states.messages)
    assert ages, "no state came while the backlog went out"
    assert ages[len(ages) // 2] < 0.5
    # The subscriber of this test keeps every message; the sink itself keeps a window.
    assert most - before < 30e6 + OUTAGE_EVENTS * 1500
    events.close()
    states.close()


def test_a_device_that_restarts_goes_on_where_it_was(tmp_path: Path, broker: Broker) -> None:
    subscriber = Subscriber(broker.port, EVENTS)
    for run in range(3):
        ledger = Ledger.open(LedgerSettings(path=tmp_path / "ledger.db", commit_ms=10))
        sink = create(settings_for(broker.port), ledger)
        ledger.listen(on_committed=lambda _events, sink=sink: sink.notify())
        ledger.record(crossings(30))
        ledger.flush()
        if run != 1:  # in the second run the broker is never seen
            sink.start()
            wait_until(lambda ledger=ledger: ledger.backlog == 0)
            sink.stop()
        ledger.close()
    wait_until(lambda: len(without_known_ids(subscriber.messages)) == 90)
    assert without_known_ids(subscriber.messages) == list(range(1, 91))
    subscriber.close()


def test_a_frozen_broker_is_noticed_and_nothing_is_lost(
    broker: Broker, make_sink: MakeSink, ledger: Ledger
) -> None:
    subscriber = Subscriber(broker.port, EVENTS)
    sink = make_sink(broker.port, keepalive_s=5)
    wait_until(lambda: sink.connected)
    process = psutil.Process(broker.pid)
    process.suspend()
    ledger.record(crossings(20))
    wait_until(lambda: not sink.connected, 15.0, "the silence to be noticed")
    process.resume()
    wait_until(lambda: ledger.seq == 20 and ledger.backlog == 0, 20.0)
    wait_until(lambda: len(without_known_ids(subscriber.messages)) == 20)
    assert without_known_ids(subscriber.messages) == list(range(1, 21))
    subscriber.close()
