"""Hours of running in minutes: what leaks, what is lost, what is counted twice.

The real service counts two clips as fast as it can and one real RTSP camera, while broker
and camera are killed, frozen and brought back at random and the configuration is reloaded.
``EDGECOUNT_SOAK_S`` says for how long (60 s where not set; ``make soak`` takes 30 minutes).
"""

import os
import random
import signal
import time
from typing import Any, Callable, Dict, List, NamedTuple

import psutil
import pytest
from support import service as services
from support.mosquitto import Broker, Subscriber
from support.rtsp import RtspServer

pytestmark = [pytest.mark.soak, pytest.mark.timeout(0)]
SECONDS = float(os.environ.get("EDGECOUNT_SOAK_S", "60"))
CLIPS = ("one", "two")
CROSSINGS_A_LOOP = 4
FRAMES_A_LOOP = 4 * (26 + 20)
SEED = 20261124


class Look(NamedTuple):
    """The process at one moment."""

    at: float
    rss: int
    descriptors: int
    threads: int


@pytest.fixture
def broker(tmp_path):
    folder = tmp_path / "broker"
    folder.mkdir()
    running = Broker(folder, persistent=True).start()
    yield running
    running.stop()


@pytest.fixture
def camera():
    server = RtspServer()
    yield server
    server.kill()


@pytest.fixture
def service(tmp_path, broker, camera):
    clip = services.walkers_clip(tmp_path / "walkers.avi", crossings=CROSSINGS_A_LOOP)
    settings = settings_of(clip, services.model(tmp_path), tmp_path, broker, camera)
    running = services.Service(tmp_path, settings)
    yield running
    running.close()


def settings_of(clip, onnx, tmp_path, broker, camera) -> Dict[str, Any]:
    base = services.configuration(str(clip), onnx)
    line = base["cameras"][0]["lines"]
    cameras: List[Dict[str, Any]] = [
        {"name": name, "source": str(clip), "capture": {"loop": True}, "lines": line}
        for name in CLIPS
    ]
    cameras.append({"name": "live", "source": camera.url(), "lines": line})
    return {
        **base,
        "cameras": cameras,
        "places": {"hall": {"in": [f"{name}.middle" for name in CLIPS]}},
        "mqtt": {"host": "127.0.0.1", "port": broker.port},
        "ledger": {"path": str(tmp_path / "ledger.db")},
    }


class Chaos:
    """Breaks something every few seconds, and mends it."""

    def __init__(self, broker: Broker, camera: RtspServer, service) -> None:
        self._random = random.Random(SEED)
        self._broker = broker
        self._camera = camera
        self._service = service
        self._bag: List[Callable[[], None]] = []
        self.done: List[str] = []

    def turn(self) -> None:
        """One fault; each kind comes once before one comes again."""
        if not self._bag:
            self._bag = [self.broker_dies, self.camera_dies, self.camera_freezes, self.reload]
            self._random.shuffle(self._bag)
        act = self._bag.pop()
        self.done.append(act.__name__)
        act()

    def pause(self, least: float, most: float) -> None:
        time.sleep(self._random.uniform(least, most))

    def broker_dies(self) -> None:
        self._broker.kill()
        self.pause(0.5, 5.0)
        self._broker.start()

    def camera_dies(self) -> None:
        self._camera.kill()
        self.pause(0.5, 4.0)
        self._camera.start()

    def camera_freezes(self) -> None:
        self._camera.freeze()
        self.pause(1.0, 8.0)
        self._camera.resume()

    def reload(self) -> None:
        self._service.process.send_signal(signal.SIGHUP)


def wait_for_recovery(service, limit: float = 60.0) -> None:
    """Every camera delivers and the outbox is empty (that a picture is dark does not matter)."""
    end = time.monotonic() + limit
    wanted = [f'edgecount_camera_up{{camera="{name}"}} 1.0' for name in (*CLIPS, "live")]
    wanted += ["edgecount_mqtt_connected 1.0"]
    while True:
        metrics = service.get("/metrics")[1]
        missing = [line for line in wanted if line not in metrics]
        if not missing:
            return
        assert time.monotonic() < end, f"not back: {missing}"
        time.sleep(0.2)


def look(process: psutil.Process) -> Look:
    return Look(
        time.monotonic(),
        process.memory_info().rss,
        process.num_fds(),
        process.num_threads(),
    )


def test_soak(service, broker, camera):
    subscriber = Subscriber(broker.port, "edgecount/#", durable=True)
    service.wait_for(lambda: service.logged("started"))
    process = psutil.Process(service.process.pid)
    chaos = Chaos(broker, camera, service)
    looks: List[Look] = []
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        chaos.turn()
        chaos.pause(2.0, 6.0)
        looks.append(look(process))
        assert service.process.poll() is None, service.log.read_text()[-2000:]
    time.sleep(10.0)  # all is mended: the outbox drains, the camera comes back
    wait_for_recovery(service)
    looks.append(look(process))
    seconds = process.cpu_times()
    assert service.terminate() == 0
    time.sleep(1.0)

    (totals,) = [stopped["totals"] for stopped in service.logged("stopped")][-1:]
    events = [
        {"camera": m.topic.split("/")[-2], **m.json()}
        for m in subscriber.messages
        if m.topic.endswith("/event")
    ]
    subscriber.close()
    report(looks, totals, events, chaos.done, seconds)
    counts_are_right(totals, events)
    nothing_leaks(looks)


def counts_are_right(totals, events) -> None:
    """Every event came, once in effect; they add up to the totals; nobody went out."""
    by_id = {e["id"]: e for e in events}
    sequence = sorted(int(e["seq"]) for e in by_id.values())
    assert sequence == list(range(1, len(sequence) + 1)), "numbers are missing or twice"
    for name in CLIPS:
        into, out = totals[name]["middle"]
        assert out == 0
        told = [e for e in by_id.values() if (e["camera"], e["line"]) == (name, "middle")]
        assert len(told) == into


def nothing_leaks(looks: List[Look]) -> None:
    """Between the second quarter and the end; the first is for caches to fill."""
    begin, last = looks[len(looks) // 4], looks[-1]
    assert last.descriptors <= begin.descriptors + 5
    assert last.threads <= begin.threads + 3
    half = looks[len(looks) // 4 :]
    early = sorted(x.rss for x in half[: len(half) // 2 or 1])
    late = sorted(x.rss for x in half[len(half) // 2 :])
    assert late[len(late) // 2] < 1.01 * early[len(early) // 2] + 1e6


def report(looks, totals, events, done, seconds) -> None:
    frames = sum(t["middle"][0] for n, t in totals.items() if n in CLIPS)
    frames = frames * FRAMES_A_LOOP // CROSSINGS_A_LOOP
    print(
        f"\n{SECONDS:.0f} s, about {frames} frames of clips ({frames / 100 / 3600:.2f} h of four "
        f"cameras at 25 FPS), {len(events)} events, {len(done)} faults "
        f"({ {x: done.count(x) for x in sorted(set(done))} }), "
        f"RSS {looks[0].rss / 1e6:.1f} → {looks[-1].rss / 1e6:.1f} MB, "
        f"descriptors {looks[0].descriptors} → {looks[-1].descriptors}, "
        f"threads {looks[0].threads} → {looks[-1].threads}, "
        f"CPU {seconds.user + seconds.system:.0f} s"
    )
