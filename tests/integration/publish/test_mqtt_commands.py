"""Commands, Home Assistant and Frigate's topics over a real broker."""

import json
import random
import time
from typing import Callable, List

import jsonschema
import pytest
from support.mosquitto import Broker, Subscriber, wait_until

from edgecount.count.ledger import Ledger
from edgecount.publish import schema
from edgecount.publish.mqtt import MqttSink
from edgecount.records import Aggregate, CountEvent, Figures, LineTotals, Snapshot, ZoneState

pytestmark = pytest.mark.integration

MakeSink = Callable[..., MqttSink]
PREFIX = "edgecount/lobby"


def test_a_command_is_done_and_answered(broker: Broker, make_sink: MakeSink) -> None:
    done: List[object] = []
    sink = make_sink(broker.port, {"set_occupancy": done.append}, commands=["set_occupancy"])
    person = Subscriber(broker.port, f"{PREFIX}/response/#")
    wait_until(lambda: sink.connected and sink.in_flight == 0)
    time.sleep(0.1)
    request = {"v": 1, "id": "r1", "place": "hall", "occupancy": 12}
    for _ in range(2):  # QoS 1 may deliver twice
        person.publish(f"{PREFIX}/command/set_occupancy", json.dumps(request).encode())
    person.publish(f"{PREFIX}/command/reset", b'{"id": "r2"}')
    wait_until(lambda: len(person.messages) == 3, what="three answers")
    answers = [m.json() for m in person.messages]
    for answer in answers:
        jsonschema.validate(answer, schema.payload("response"))
    assert answers[0] == answers[1]
    assert (answers[0]["id"], answers[0]["ok"]) == ("r1", True)
    assert not answers[2]["ok"]
    assert len(done) == 1
    person.close()


def test_without_an_allow_list_nothing_is_heard(broker: Broker, make_sink: MakeSink) -> None:
    done: List[object] = []
    sink = make_sink(broker.port, {"reset": done.append})
    person = Subscriber(broker.port, f"{PREFIX}/response/#")
    wait_until(lambda: sink.connected)
    person.publish(f"{PREFIX}/command/reset", b'{"id": "r1"}')
    time.sleep(0.5)
    assert done == []
    assert person.messages == []
    person.close()


def test_hostile_messages_over_the_broker(
    broker: Broker, make_sink: MakeSink, ledger: Ledger
) -> None:
    done: List[object] = []
    handlers = dict.fromkeys(("reset", "set_occupancy", "reload"), done.append)
    sink = make_sink(broker.port, handlers, commands=list(handlers), homeassistant=True)
    witness = Subscriber(broker.port, f"{PREFIX}/door/event", "witness")
    person = Subscriber(broker.port, "nothing")
    wait_until(lambda: sink.connected)
    rng = random.Random(11)
    topics = [f"{PREFIX}/command/{name}" for name in (*handlers, "x", "é", "reset ")]
    topics += ["homeassistant/status", "homeassistant/device/lobby/config"]
    for n in range(3000):
        payload = bytes(rng.getrandbits(8) for _ in range(rng.randrange(60)))
        if n % 300 == 0:
            payload = b"[" * 200_000
        person._client.publish(rng.choice(topics), payload, qos=0, retain=rng.random() < 0.1)
    ledger.record([CountEvent("line", "door", "entrance", "in", 1, 1, time.time())])
    wait_until(lambda: len(witness.messages) == 1, 20.0, "the event behind the flood")
    assert sink.connected
    assert done == []
    person.close()
    witness.close()


def test_aggregates_are_published(broker: Broker, make_sink: MakeSink) -> None:
    subscriber = Subscriber(broker.port, f"{PREFIX}/aggregate/#")
    sink = make_sink(broker.port)
    sink.publish_aggregates(
        [Aggregate("minute", 60, 120, {("door", "entrance"): Figures(1, 2)}, {}, {})]
    )
    wait_until(lambda: len(subscriber.messages) == 1)
    (message,) = subscriber.messages
    assert message.topic == f"{PREFIX}/aggregate/minute"
    assert not message.retained
    jsonschema.validate(message.json(), schema.payload("aggregate"))
    assert message.json()["lines"] == {"door": {"entrance": {"in": 1, "out": 2}}}
    subscriber.close()


def test_home_assistant_sees_entities_come_and_go(broker: Broker, make_sink: MakeSink) -> None:
    topic = "homeassistant/device/lobby/config"
    old = {"components": {"gone": {"platform": "sensor", "unique_id": "gone"}}}
    home = Subscriber(broker.port, "homeassistant/#", "home")
    home.publish(topic, json.dumps(old).encode(), retain=True)
    sink = make_sink(broker.port, homeassistant=True)
    wait_until(lambda: len(home.on(topic)) == 3, what="removal and announcement")
    removal, final = (m.json()["components"] for m in home.on(topic)[1:])
    assert removal["gone"] == {"platform": "sensor"}
    assert "gone" not in final
    assert set(final) == set(removal) - {"gone"}
    state = Subscriber(broker.port, f"{PREFIX}/door/state", "state")
    sink.publish_state(Snapshot("door", time.time(), 1, 2, {"entrance": LineTotals(1, 2)}))
    wait_until(lambda: len(state.messages) == 1)
    home.publish("homeassistant/status", b"online")  # Home Assistant was restarted
    wait_until(lambda: len(home.on(topic)) == 4 and len(state.messages) == 2)
    home.close()
    state.close()


def test_frigates_topics(broker: Broker, make_sink: MakeSink) -> None:
    dashboard = Subscriber(broker.port, "frigate/#")
    sink = make_sink(broker.port, frigate_topics=True)
    zones = {"hall": ZoneState(now=2)}
    for visible in (3, 3, 4):
        sink.publish_state(Snapshot("door", time.time(), 1, visible, zones=zones))
        wait_until(lambda: sink.connected and sink.in_flight == 0)
        time.sleep(0.05)
    wait_until(lambda: dashboard.last("frigate/door/person") == b"4")
    assert [m.payload for m in dashboard.on("frigate/door/person")] == [b"3", b"4"]
    assert dashboard.last("frigate/hall/person") == b"2"
    assert dashboard.last("frigate/available") == b"online"
    sink.stop()
    wait_until(lambda: dashboard.last("frigate/available") == b"offline")
    dashboard.close()
