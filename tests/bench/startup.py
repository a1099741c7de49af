#!/usr/bin/env python3
"""How long until the first frame is counted, and what a camera that is away costs.

Usage: startup.py CLIP [SECONDS]. Prints JSON: wall and CPU seconds from the start of
``edgecount run`` to the first counted frame with the shipped model (median and worst of
five), and the CPU share of a core of a service whose only camera, an RTSP server that
is not there, is away.
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support.service import Service

RUNS = 5
SETTLED_S = 12.0


def main(clip: str, seconds: float) -> None:
    starts = [first_count(clip) for _ in range(RUNS)]
    report = {
        "start_to_first_counted_frame": {
            name: {
                "median_s": round(statistics.median(s[name] for s in starts), 2),
                "worst_s": round(max(s[name] for s in starts), 2),
            }
            for name in ("wall", "cpu")
        },
        "camera_away_share_of_a_core": round(away(seconds), 4),
    }
    print(json.dumps(report, indent=1))


def settings(source: str) -> Dict[str, Any]:
    line = {"name": "middle", "from": [0.0, 0.5], "to": [1.0, 0.5]}
    return {
        "device": "lobby",
        "cameras": [{"name": "door", "source": source, "lines": [line]}],
        "http": {"port": 0},
        "ledger": {"enabled": False},
    }


def first_count(clip: str) -> Dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        service = Service(Path(folder), settings(clip))
        try:
            process = psutil.Process(service.process.pid)
            while 'outcome="processed"} 0' in metrics(service):
                time.sleep(0.01)
            used = process.cpu_times()
            return {"wall": time.monotonic() - began, "cpu": used.user + used.system}
        finally:
            service.close()


def metrics(service: Service) -> str:
    # Not through Service.get, which looks twenty times a second.
    while not service.logged("started"):
        time.sleep(0.01)
    return service.get("/metrics")[1]


def away(seconds: float) -> float:
    with tempfile.TemporaryDirectory() as folder:
        service = Service(Path(folder), settings("rtsp://127.0.0.1:9/door"))
        try:
            service.wait_for(lambda: service.logged("camera_away"))
            time.sleep(SETTLED_S)
            process = psutil.Process(service.process.pid)
            before = process.cpu_times()
            time.sleep(seconds)
            after = process.cpu_times()
            used = after.user + after.system - before.user - before.system
            return float(used / seconds)
        finally:
            service.close()


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 60.0)
