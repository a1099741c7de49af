import contextlib
import io
import json
import logging
import sys
import threading

import pytest
import structlog

from edgecount.observe import logs
from edgecount.redact import Redactor


@pytest.fixture(autouse=True)
def restored():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    hooks = sys.excepthook, threading.excepthook
    yield
    root.handlers[:], root.level = handlers, level
    sys.excepthook, threading.excepthook = hooks
    logging.captureWarnings(False)
    structlog.reset_defaults()


@pytest.fixture
def stream():
    return io.StringIO()


def lines(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_one_json_object_a_line_with_the_fields_in_order(stream):
    logs.configure("info", "json", str, stream)
    structlog.get_logger("edgecount.test").warning("camera_lost", reason="a\nb", camera="door")
    (line,) = lines(stream)
    assert list(line) == ["ts", "level", "event", "camera", "reason"]
    assert line["level"] == "warning"
    assert line["reason"] == "a\nb"
    assert line["ts"].endswith("Z")


def test_auto_is_json_unless_the_stream_is_a_terminal(stream, monkeypatch):
    logs.configure("info", "auto", str, stream)
    structlog.get_logger().info("started")
    assert lines(stream)
    monkeypatch.setattr(stream, "isatty", lambda: True)
    logs.configure("info", "auto", str, stream)
    structlog.get_logger().info("started")
    assert not stream.getvalue().splitlines()[-1].startswith("{")


def test_levels(stream):
    logs.configure("warning", "json", str, stream)
    structlog.get_logger().info("started")
    logging.getLogger("paho").info("connecting")
    assert lines(stream) == []


@pytest.mark.parametrize("shape", ["json", "console"])
def test_secrets_are_masked_everywhere(stream, shape):
    logs.configure("debug", shape, Redactor(["hunter2"]), stream)
    log = structlog.get_logger()
    log.info("with_hunter2", url="rtsp://a:other@h/1", deep={"hunter2": ["hunter2"]})
    logging.getLogger("paho.mqtt").warning("login %s failed", "hunter2")
    try:
        hunter2 = "hunter2"
        raise RuntimeError(f"could not open {hunter2}")
    except RuntimeError:
        log.exception("camera_lost", camera="door")
        logging.getLogger("cv2").exception("oops hunter2")
    text = stream.getvalue()
    assert "hunter2" not in text
    assert "other@" not in text
    assert "RuntimeError" in text
    assert "***" in text


def test_other_libraries_logs_become_one_event(stream):
    logs.configure("info", "json", str, stream)
    logging.getLogger("paho.mqtt").warning("no answer from %s", "broker")
    (line,) = lines(stream)
    assert line["event"] == "library_log"
    assert line["library"] == "paho.mqtt"
    assert line["message"] == "no answer from broker"


def test_context_of_a_camera_is_on_every_line(stream):
    logs.configure("info", "json", str, stream)
    structlog.get_logger().bind(camera="door").info("camera_online")
    with structlog.contextvars.bound_contextvars(camera="yard"):
        structlog.get_logger().info("camera_online")
    assert [line["camera"] for line in lines(stream)] == ["door", "yard"]


def test_crashes_are_logged_and_masked(stream):
    logs.configure("info", "json", Redactor(["hunter2"]), stream)

    def crash():
        raise ValueError("hunter2")

    thread = threading.Thread(target=crash, name="capture:door")
    thread.start()
    thread.join()
    try:
        crash()
    except ValueError:
        sys.excepthook(*sys.exc_info())
    first, second = lines(stream)
    assert (first["event"], first["thread"]) == ("thread_crashed", "capture:door")
    assert second["event"] == "process_crashed"
    assert "ValueError: ***" in first["exception"]
    assert "hunter2" not in stream.getvalue()


def test_configuring_again_replaces_the_old_way(stream):
    other = io.StringIO()
    log = structlog.get_logger()
    logs.configure("info", "json", str, stream)
    log.info("started")
    logs.configure("error", "json", str, other)
    log.info("started")
    log.error("failed")
    assert len(lines(stream)) == 1
    assert [line["event"] for line in lines(other)] == ["failed"]


def test_repeats_are_limited_in_the_chain(stream):
    logs.configure("info", "json", str, stream)
    for _ in range(50):
        structlog.get_logger().warning("camera_lost", camera="door")
    assert len(lines(stream)) == 5


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def passed(limit, clock, times, event="camera_lost", camera="door"):
    kept = []
    for now in times:
        clock.now = now
        with contextlib.suppress(structlog.DropEvent):
            kept.append((now, limit(None, "warning", {"event": event, "camera": camera})))
    return [(now, line.get("suppressed", 0)) for now, line in kept]


def test_a_burst_passes_then_one_per_interval_with_the_number_dropped():
    clock = Clock()
    limit = logs.RateLimit(burst=2, interval_s=10.0, clock=clock)
    assert passed(limit, clock, range(25)) == [(0, 0), (1, 0), (11, 9), (21, 9)]


def test_after_a_quiet_time_a_burst_passes_again():
    clock = Clock()
    limit = logs.RateLimit(burst=2, interval_s=10.0, clock=clock)
    passed(limit, clock, range(5))
    assert passed(limit, clock, [50, 51, 52]) == [(50, 3), (51, 0)]


def test_cameras_and_events_are_told_apart():
    clock = Clock()
    limit = logs.RateLimit(burst=1, interval_s=10.0, clock=clock)
    assert passed(limit, clock, [0], camera="door")
    assert passed(limit, clock, [0], camera="yard")
    assert passed(limit, clock, [0], event="camera_online")
    assert not passed(limit, clock, [0])


def test_memory_of_the_limit_is_bounded():
    clock = Clock()
    limit = logs.RateLimit(clock=clock, remembered=10)
    for i in range(100):
        passed(limit, clock, [0], event=f"event_{i}")
    assert len(limit._seen) == 10
