#!/usr/bin/env python3
"""How long the tracker's kernel takes, beside the CPU's tracker.

    gpu_tracker.py --out DIR [--quick]

Needs a GPU. A scene of walking people, all detected with noise, is tracked for 60 frames, until
there are as many tracks as people. Then 24 further frames are timed one by one, between
events: every other one is a replay of a CUDA graph with the kernel alone, the others are
launches from Python. The medians are given, and for "missed" those of a scene where one
person in ten is missed and one score in four is weak. All results are compared with the CPU's.
1,000 people have a picture of 2,500 × 2,500 pixels; density is the same for the others.
Writes gpu_tracker.json and prints a table.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, Sequence

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.tracker_run import TrackerRun, assert_same, crowd

from edgecount.infer.cuda.driver import Device, Stream
from edgecount.records import Detections
from edgecount.track import two_stage
from edgecount.track.two_stage import Options

PEOPLE, CAMERAS = (16, 64, 256, 1000), (1, 16, 64)
SETTLE, TIMED = 60, 24
AREA_PER_PERSON = 2500.0**2 / 1000  # square pixels; heads are 30 pixels wide
DT = 0.04
# With others, confused tracks live on beside their people's: more than the 1,024 of the kernel.
SEEDS = (2, 3, 4, 5)
KINDS = {"all seen": (1.0, 0.5, 0), "missed": (0.9, 0.1, 3)}  # recall, lowest score, false boxes
Row = Dict[str, Any]


def scene(kind: str, people: int, seed: int) -> List[Detections]:
    """People at a fixed density."""
    area = float(np.sqrt(AREA_PER_PERSON * people))
    recall, lowest, false = KINDS[kind]
    frames = SETTLE + TIMED
    return crowd(frames, people, seed, area=area, recall=recall, lowest=lowest, false=false)


def measure(device: Device, stream: Stream, kind: str, people: int, cameras: int) -> Row:
    """Median microseconds of one launch; every result is compared with the CPU's."""
    distinct = [scene(kind, people, seed) for seed in SEEDS[:cameras]]
    scenes = [distinct[c % len(distinct)] for c in range(cameras)]
    run = TrackerRun(device, stream, [Options()] * cameras)
    references = [two_stage.create(Options()) for _ in distinct]
    start, end = device.event(timing=True), device.event(timing=True)
    launched: List[float] = []
    replayed: List[float] = []
    cpu: List[float] = []
    tracks: List[int] = []
    run.put([s[0] for s in scenes], [0.0] * cameras)
    graph = device.graph(stream, lambda: run.launch(cameras))
    for number in range(SETTLE + TIMED):
        run.put([s[number] for s in scenes], [DT] * cameras)
        stream.synchronize()
        by_graph = number % 2 == 0
        stream.record(start)
        graph.launch(stream) if by_graph else run.launch(cameras)
        stream.record(end)
        got = run.results(cameras)
        began = time.perf_counter()
        expected = [r.update(s[number], DT) for r, s in zip(references, distinct)]
        spent = (time.perf_counter() - began) / len(references)
        for c in range(cameras):
            assert_same(got[c], expected[c % len(expected)], f"camera {c} frame {number}")
        if number >= SETTLE:
            (replayed if by_graph else launched).append(1e6 * end.since(start))
            cpu.append(1e6 * spent)
            tracks.append(len(expected[0]))
    graph.close()
    run.close()
    return {
        "scene": kind,
        "people": people,
        "cameras": cameras,
        "tracks": statistics.median(tracks),
        "detections": statistics.median([len(f) for f in distinct[0][SETTLE:]]),
        "graph_us": statistics.median(replayed),
        "graph_us_worst": max(replayed),
        "launch_us": statistics.median(launched),
        "cpu_us_per_camera": statistics.median(cpu),
    }


def table(rows: Sequence[Row]) -> str:
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + "--:|" * len(names)]
    for row in rows:
        cells = (f"{v:.1f}" if isinstance(v, float) else str(v) for v in row.values())
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="without 16 cameras")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with Device.open() as device:
        stream = device.stream()
        measure(device, stream, "missed", 16, 1)  # compiles, and wakes the clocks
        cameras = [n for n in CAMERAS if n != 16 or not arguments.quick]
        rows = [
            measure(device, stream, kind, people, n)
            for kind in KINDS
            for people in PEOPLE
            for n in cameras
            if kind == "all seen" or n != 16
        ]
        properties = device.properties
    report = {
        "device": properties.name,
        "driver": ".".join(map(str, properties.driver)),
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
        "command": " ".join(["gpu_tracker.py", *sys.argv[1:]]),
        "rows": rows,
    }
    (arguments.out / "gpu_tracker.json").write_text(json.dumps(report, indent=2) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
