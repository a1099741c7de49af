"""The sink against a real mosquitto."""

import json
import time
from typing import Callable

import pytest
from support.mosquitto import Broker, Proxy, Subscriber, wait_until

from edgecount.count.ledger import Ledger
from edgecount.publish.base import PlaceState
from edgecount.publish.mqtt import MqttSink
from edgecount.records import CountEvent, LineTotals, Snapshot

pytestmark = pytest.mark.integration

MakeSink = Callable[..., MqttSink]


def crossing(n: int) -> CountEvent:
    return CountEvent("line", "door", "entrance", "in", n, n, time.time())


def snapshot(visible: int) -> Snapshot:
    return Snapshot("door", time.time(), 1, visible, {"entrance": LineTotals(1, 2)})


def test_states_and_statuses_are_retained(broker: Broker, make_sink: MakeSink) -> None:
    sink = make_sink(broker.port)
    sink.publish_state(snapshot(3))
    sink.publish_camera_status("door", "online")
    sink.publish_place(PlaceState("hall", 1.0, 2, 4, 6, 2, 5))
    wait_until(lambda: sink.connected and sink.in_flight == 0)
    time.sleep(0.2)
    late = Subscriber(broker.port, "edgecount/#")
    wait_until(lambda: len(late.messages) >= 4, what="four retained messages")
    assert late.last("edgecount/lobby/status") == b"online"
    assert late.last("edgecount/lobby/door/status") == b"online"
    assert json.loads(late.last("edgecount/lobby/door/state") or b"")["visible"] == 3
    assert json.loads(late.last("edgecount/lobby/place/hall/state") or b"")["occupancy"] == 4
    assert all(m.retained for m in late.messages)
    late.close()


def test_events_arrive_once_in_order_and_are_acknowledged(
    broker: Broker, make_sink: MakeSink, ledger: Ledger
) -> None:
    subscriber = Subscriber(broker.port, "edgecount/lobby/door/event")
    sink = make_sink(broker.port)
    wait_until(lambda: sink.connected)
    for n in range(300):
        ledger.record([crossing(n)])
    wait_until(lambda: len(subscriber.messages) >= 300, what="300 events")
    events = [m.json() for m in subscriber.messages]
    assert [e["seq"] for e in events] == list(range(1, 301))
    assert not any(e["recovered"] for e in events)
    wait_until(lambda: ledger.backlog == 0)
    subscriber.close()


def test_stop_says_offline_within_two_seconds(broker: Broker, make_sink: MakeSink) -> None:
    subscriber = Subscriber(broker.port, "edgecount/lobby/status")
    sink = make_sink(broker.port)
    wait_until(lambda: subscriber.last("edgecount/lobby/status") == b"online")
    started = time.monotonic()
    sink.stop()
    assert time.monotonic() - started < 2.0
    wait_until(lambda: subscriber.last("edgecount/lobby/status") == b"offline")
    subscriber.close()


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
def test_a_dead_device_is_declared_offline_by_its_will(
    broker: Broker, make_sink: MakeSink, protocol: str
) -> None:
    proxy = Proxy(broker.port)
    subscriber = Subscriber(broker.port, "edgecount/lobby/status")
    make_sink(proxy.port, protocol=protocol)
    wait_until(lambda: subscriber.last("edgecount/lobby/status") == b"online")
    proxy.refusing = True
    proxy.cut()
    wait_until(lambda: subscriber.last("edgecount/lobby/status") == b"offline")
    proxy.close()
    subscriber.close()


def test_the_full_state_is_sent_again_after_a_broker_without_memory_restarts(
    broker: Broker, make_sink: MakeSink
) -> None:
    sink = make_sink(broker.port)
    sink.publish_state(snapshot(7))
    sink.publish_camera_status("door", "degraded")
    wait_until(lambda: sink.connected and sink.in_flight == 0)
    broker.kill()
    wait_until(lambda: not sink.connected)
    broker.start()
    subscriber = Subscriber(broker.port, "edgecount/#")
    wait_until(lambda: len(subscriber.messages) >= 3, what="the full state")
    assert json.loads(subscriber.last("edgecount/lobby/door/state") or b"")["visible"] == 7
    assert subscriber.last("edgecount/lobby/door/status") == b"degraded"
    subscriber.close()


def test_what_happened_during_an_outage_arrives_flagged(
    broker: Broker, make_sink: MakeSink, ledger: Ledger
) -> None:
    proxy = Proxy(broker.port)
    subscriber = Subscriber(broker.port, "edgecount/lobby/door/event")
    sink = make_sink(proxy.port)
    ledger.record([crossing(0)])
    wait_until(lambda: len(subscriber.messages) == 1)
    proxy.refusing = True
    proxy.cut()
    wait_until(lambda: not sink.connected)
    for n in range(1, 50):
        ledger.record([crossing(n)])
    ledger.flush()
    proxy.refusing = False
    wait_until(lambda: len(subscriber.messages) >= 50, what="50 events")
    ledger.record([crossing(50)])
    wait_until(lambda: len(subscriber.messages) >= 51, what="the live event")
    events = [m.json() for m in subscriber.messages]
    assert [e["seq"] for e in events] == list(range(1, 52))
    assert [e["recovered"] for e in events[1:50]] == [True] * 49
    assert not events[50]["recovered"]
    subscriber.close()
    proxy.close()
