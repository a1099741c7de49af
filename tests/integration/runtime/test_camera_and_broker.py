"""The whole service against a real RTSP server and a real broker that come and go."""

import json
import time
from pathlib import Path
from typing import Any, Dict, Iterator

import pytest
from support.mosquitto import Broker, Subscriber
from support.rtsp import RtspServer
from support.service import configuration

pytestmark = pytest.mark.integration


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    broker = Broker(tmp_path).start()
    yield broker
    broker.kill()


@pytest.fixture
def camera() -> Iterator[RtspServer]:
    server = RtspServer()
    yield server
    server.kill()


def watching(camera: RtspServer, onnx: Path, **changes: Any) -> Dict[str, Any]:
    settings = configuration(camera.url(), onnx, **changes)
    settings["cameras"][0].update(watch_picture=False, fps=15)
    return settings


def within(seconds: float, service: Any, condition: Any) -> float:
    """Seconds until ``condition`` holds; fails after ``seconds``."""
    began = time.monotonic()
    service.wait_for(condition, seconds)
    return time.monotonic() - began


def test_a_camera_that_dies_is_degraded_within_5_s_and_back_within_5_s(launch, camera, onnx):
    service = launch(watching(camera, onnx))
    service.wait_for(lambda: service.camera()["status"] == "online")
    camera.kill()
    within(5.0, service, lambda: service.camera()["status"] == "degraded")
    assert "stale" in service.camera()["degraded"]
    service.wait_for(lambda: service.get("/readyz")[0] == 503)
    assert service.get("/healthz")[0] == 200
    camera.start()
    within(5.0, service, lambda: service.camera()["status"] == "online")
    service.wait_for(lambda: service.get("/readyz")[0] == 200)
    assert 'edgecount_reconnects_total{camera="door"} ' in service.get("/metrics")[1]
    assert service.terminate() == 0


def test_a_camera_that_freezes_is_degraded_within_5_s_and_back_within_5_s(launch, camera, onnx):
    service = launch(watching(camera, onnx))
    service.wait_for(lambda: service.camera()["status"] == "online")
    camera.freeze()
    within(5.0, service, lambda: service.camera()["status"] == "degraded")
    time.sleep(6)
    assert service.get("/healthz")[0] == 200
    camera.resume()
    within(5.0, service, lambda: service.camera()["status"] == "online")
    assert service.terminate() == 0


def test_a_camera_that_never_was_there_keeps_nobody_waiting(launch, onnx):
    service = launch(configuration("rtsp://viewer:hunter2-secret@127.0.0.1:9/cam", onnx))
    service.wait_for(lambda: service.camera()["status"] == "degraded")
    service.wait_for(lambda: service.get("/readyz")[0] == 503)
    assert service.terminate() == 0
    assert "hunter2-secret" not in service.log.read_text()


def test_counts_reach_a_broker_and_the_last_words_are_offline(launch, broker, clip, onnx):
    subscriber = Subscriber(broker.port)
    settings = configuration(
        str(clip), onnx, mqtt={"host": "127.0.0.1", "port": broker.port, "state_interval_s": 0.1}
    )
    settings["cameras"][0]["capture"] = {"realtime": True, "fps": 50}
    service = launch(settings)
    service.wait_for(lambda: subscriber.last("edgecount/lobby/status") == b"online")
    assert service.ended(60) == 0
    time.sleep(0.3)
    subscriber.close()
    state = json.loads(subscriber.last("edgecount/lobby/door/state") or b"{}")
    assert state["lines"]["middle"] == {"in": 4, "out": 0}
    place = json.loads(subscriber.last("edgecount/lobby/place/hall/state") or b"{}")
    assert place["occupancy"] == 4
    events = [m.json() for m in subscriber.on("edgecount/lobby/door/event")]
    crossings = [e for e in events if e["kind"] == "line"]
    assert [e["direction"] for e in crossings] == ["in"] * 4
    assert len({e["id"] for e in events}) == len(events)
    assert [e["seq"] for e in events] == sorted(e["seq"] for e in events)
    assert subscriber.last("edgecount/lobby/status") == b"offline"
    assert subscriber.last("edgecount/lobby/door/status") == b"offline"


def test_a_broker_that_comes_late_and_goes_away_loses_no_event(launch, tmp_path, clip, onnx):
    broker = Broker(tmp_path)
    settings = configuration(
        str(clip), onnx, mqtt={"host": "127.0.0.1", "port": broker.port, "state_interval_s": 0.1}
    )
    settings["cameras"][0]["capture"] = {"realtime": True, "fps": 20, "loop": True}
    service = launch(settings)
    service.wait_for(lambda: service.camera()["lines"]["middle"]["in"] >= 1)
    broker.start()
    subscriber = Subscriber(broker.port)
    service.wait_for(lambda: subscriber.on("edgecount/lobby/door/event"))
    broker.kill()
    counted = service.camera()["lines"]["middle"]["in"]
    service.wait_for(lambda: service.camera()["lines"]["middle"]["in"] > counted)
    broker.start()
    service.wait_for(
        lambda: (
            len({m.json()["id"] for m in subscriber.on("edgecount/lobby/door/event")})
            >= counted + 1
        )
    )
    assert service.terminate() == 0
    subscriber.close()
    broker.kill()
    ids = list(dict.fromkeys(m.json()["seq"] for m in subscriber.on("edgecount/lobby/door/event")))
    assert ids == list(range(1, len(ids) + 1))


def test_a_refused_login_is_named_and_the_password_is_not(launch, tmp_path, clip, onnx):
    passwords = tmp_path / "passwords"
    passwords.write_text("")
    broker = Broker(tmp_path, f"allow_anonymous false\npassword_file {passwords}").start()
    settings = configuration(
        str(clip),
        onnx,
        mqtt={
            "host": "127.0.0.1",
            "port": broker.port,
            "username": "edge",
            "password": "${MQTT_PASSWORD}",
        },
    )
    settings["cameras"][0]["capture"] = {"realtime": True, "loop": True}
    service = launch(settings, environ={"MQTT_PASSWORD": "s3cret-planted"})
    ready = service.wait_for(
        lambda: [
            r for r in [json.loads(service.get("/readyz")[1])] if r.get("broker", {}).get("error")
        ]
    )[0]
    assert not ready["broker"]["connected"]
    metrics = service.get("/metrics")[1]
    assert "edgecount_mqtt_connected 0.0" in metrics
    assert service.terminate() == 0
    broker.kill()
    for text in (service.log.read_text(), metrics, json.dumps(ready)):
        assert "s3cret-planted" not in text
