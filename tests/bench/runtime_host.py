#!/usr/bin/env python3
"""What the service's own Python takes per frame, without a device: its GPU does nothing.

    runtime_host.py [--cameras 16] [--tracks 9] [--seconds 5] [--zones 0]

Cameras whose frames are on the GPU already hand them over as fast as they are taken; they go
through readers, slots, batcher, CUDA backend (on a driver whose calls return at once), counting
and metrics as in the service. Prints frames per second and processor time per frame. To see
where it goes:  py-spy record --gil -f raw -o gil.txt -- python runtime_host.py
"""

import argparse
import json
import resource
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Optional

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cuda_host

from edgecount.config import Settings
from edgecount.infer.cuda.backend import CudaBackend
from edgecount.observe.health import Health
from edgecount.observe.metrics import Metrics
from edgecount.records import DeviceFrame, FrameInfo, Surface
from edgecount.runtime import core
from edgecount.runtime.plan import prepare

FPS = 25.0
LINE = {"name": "middle", "from": [0.0, 0.5], "to": [1.0, 0.5]}
ZONE = {"name": "hall", "polygon": [[0.2, 0.2], [0.8, 0.2], [0.8, 0.9]]}
SURFACE = Surface(0, 1 << 30, (1 << 30) + 1920 * 1080, 1920, None)


class Camera:
    """A source whose pictures are there at once."""

    live, fps, skipped, label = False, FPS, 0, "nowhere"

    def __init__(self, name: str) -> None:
        self._name = name
        self._index = 0

    def open(self) -> None:
        """Nothing."""

    def read(self) -> Optional[DeviceFrame]:
        index = self._index
        self._index += 1
        info = FrameInfo(self._name, index, index / FPS, index / FPS, 1920, 1080)
        return DeviceFrame(info, SURFACE, lambda *_: cuda_host.PICTURE)

    def interrupt(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def plan_of(cameras: int, zones: int) -> Any:
    settings = {
        "model": {"name": "head-n", "fallback": False},
        "cameras": [
            {
                "name": f"camera{n}",
                "source": f"{n}.mp4",
                "lines": [LINE],
                "zones": [{**ZONE, "name": f"zone{z}"} for z in range(zones)],
                "watch_picture": False,
            }
            for n in range(cameras)
        ],
    }
    plan = prepare(Settings.model_validate(settings), lambda *_: None)
    for camera in plan.cameras:
        object.__setattr__(camera, "source", Camera(camera.settings.name))
    return plan


def run(cameras: int, tracks: int, zones: int, seconds: float) -> Any:
    calls = cuda_host.null_cuda()
    batch = min(8, cameras)
    backend: CudaBackend = cuda_host.open_backend(calls, batch, tracks, cameras)
    core.choose = lambda *_a, **_k: SimpleNamespace(backend=backend, fallback=None)
    plan = plan_of(cameras, zones)
    made = core.Core(plan, Metrics(), Health(), time.monotonic, lambda _events: None)

    def captured() -> int:
        return sum(unit.reader.captured for unit in made.units.values())

    made.start()
    time.sleep(1.0)
    first, began, cpu = captured(), time.perf_counter(), cpu_s()
    time.sleep(seconds)
    frames = captured() - first
    took, cpu = time.perf_counter() - began, cpu_s() - cpu
    made.stop()
    return {"fps": frames / took, "host_us": 1e6 * cpu / frames, "cameras": cameras}


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cameras", type=int, default=16)
    parser.add_argument("--tracks", type=int, default=9)
    parser.add_argument("--zones", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=5.0)
    given = parser.parse_args()
    print(json.dumps(run(given.cameras, given.tracks, given.zones, given.seconds)))


if __name__ == "__main__":
    main()
