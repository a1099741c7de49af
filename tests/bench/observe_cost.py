#!/usr/bin/env python3
"""What observability costs: calls per frame, the idle process, and a scrape.

Usage: observe_cost.py [SECONDS]. Prints JSON. Everything that a service of four cameras runs
beside counting is running: metrics, HTTP server, watchdog, telemetry.
"""

import json
import socket
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

from edgecount.observe.health import Health
from edgecount.observe.http import HttpServer, routes
from edgecount.observe.metrics import STAGES, Metrics
from edgecount.observe.rates import RateMeter
from edgecount.observe.telemetry.sampler import Sampler, sources
from edgecount.redact import Redactor
from edgecount.runtime.systemd import Notifier, Watchdog

CAMERAS = 4


def main(seconds: float) -> None:
    """Measure and print."""
    sampler = Sampler(sources())
    metrics = Metrics(device=sampler.latest)
    cameras = [metrics.camera(f"cam{i}", 25.0, ["a", "b"], ["hall"]) for i in range(CAMERAS)]
    health = Health()
    beat = health.stage("infer", 1e9)
    result = {"calls_us": calls(metrics, cameras[0], beat)}
    with tempfile.TemporaryDirectory() as folder, socket.socket(
        socket.AF_UNIX, socket.SOCK_DGRAM
    ) as manager:
        manager.bind(str(Path(folder) / "notify"))
        drain(manager)
        server = HttpServer("127.0.0.1", 0, routes(metrics.registry, health, dict, Redactor()))
        watchdog = Watchdog(Notifier(str(Path(folder) / "notify")), health, 30.0)
        sampler.start()
        watchdog.start()
        result["idle_cpu_percent_of_a_core"] = round(idle(seconds), 3)
        result["scrape_ms"] = scrapes(server.port)
        for running in (watchdog, server, sampler):
            running.close()
    print(json.dumps(result, indent=2))


def calls(metrics, camera, beat):
    """Microseconds per call, best of five runs."""
    meter, steady = RateMeter(), RateMeter()
    for i in range(300):
        steady.tick(i / 25)
    asked = {
        "frame": lambda: camera.frame("processed"),
        "stage": lambda: metrics.stage("infer", 0.012),
        "crossed": lambda: camera.crossed("a", "in"),
        "sees": lambda: camera.sees(3),
        "beat": beat,
        "tick": lambda: meter.tick(12.0),
        "fluctuation": lambda: steady.fluctuation(12.0),
    }
    return {name: round(1e6 * best(call), 2) for name, call in asked.items()}


def best(call, rounds=5, times=2000):
    """Seconds per call."""

    def once():
        begun = time.perf_counter()
        for _ in range(times):
            call()
        return (time.perf_counter() - begun) / times

    return min(once() for _ in range(rounds))


def idle(seconds):
    """CPU time of this process while it only waits, in percent of a core."""
    time.sleep(1.0)
    before = time.process_time()
    time.sleep(seconds)
    return 100.0 * (time.process_time() - before) / seconds


def scrapes(port, times=50):
    """Milliseconds that a scrape takes, connection included, and this process's CPU in it."""
    for stage in STAGES:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics?{stage}").read()
    took = []
    for _ in range(times):
        begun = time.perf_counter()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            size = len(answer.read())
        took.append(1000 * (time.perf_counter() - begun))
    return {
        "median": round(statistics.median(took), 2),
        "p98": round(sorted(took)[-2], 2),
        "bytes": size,
    }


def drain(manager):
    """Read the notifications, as systemd does."""

    def read():
        while True:
            manager.recv(4096)

    threading.Thread(target=read, daemon=True).start()


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 30.0)
