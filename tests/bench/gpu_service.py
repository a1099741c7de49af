#!/usr/bin/env python3
"""How many cameras of 25 frames a second the service itself holds on a GPU.

    gpu_service.py CLIP --out DIR [--cameras 16 32 64] [--seconds 20] [--kind nvdec]
                   [--backend cuda] [--precision fp16]

Runs ``edgecount run`` with so many cameras that all play CLIP in real time and in a loop, each
with a line, and reads its metrics twice. CLIP is best a raw H.264 stream (25 frames a second
are assumed). Prints JSON and writes it to DIR/gpu_service.json: frames counted and left out,
latency from capture to count, memory, cores.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List, Tuple

from prometheus_client.parser import text_string_to_metric_families

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support.service import Service

FPS = 25.0
SETTLE_S = 8.0
START_S, STOP_S = 120.0, 20.0
LINE = {"name": "middle", "from": [0.0, 0.5], "to": [1.0, 0.5]}
Samples = Dict[Tuple[str, Tuple[Tuple[str, str], ...]], float]


def settings(given: argparse.Namespace, cameras: int) -> Dict[str, Any]:
    capture = {"kind": given.kind, "loop": True, "realtime": True, "fps": FPS}
    return {
        "device": "bench",
        "model": {
            "name": "head-n",
            "backend": given.backend,
            "precision": given.precision,
            "fallback": False,
        },
        "cameras": [
            {
                "name": f"camera{n}",
                "source": given.clip,
                "fps": FPS,
                "capture": capture,
                "lines": [LINE],
            }
            for n in range(cameras)
        ],
        "http": {"port": 0},
    }


def scrape(service: Service) -> Samples:
    families = text_string_to_metric_families(service.get("/metrics")[1])
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for f in families for s in f.samples}


def total(samples: Samples, name: str, **labels: str) -> float:
    wanted = set(labels.items())
    return sum(v for (n, found), v in samples.items() if n == name and wanted <= set(found))


def latency_ms(before: Samples, after: Samples, share: float) -> float:
    """From capture to count: the bucket's upper bound that so many frames stay within."""
    counts: List[Tuple[float, float]] = []
    for (name, labels), value in after.items():
        found = dict(labels)
        if name == "edgecount_stage_seconds_bucket" and found["stage"] == "end_to_end":
            counts.append((float(found["le"]), value - before.get((name, labels), 0.0)))
    counts.sort()
    return 1e3 * next(bound for bound, count in counts if count >= share * counts[-1][1])


def measure(given: argparse.Namespace, cameras: int) -> Dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder)
        changes = {**settings(given, cameras), "ledger": {"path": str(where / "counts.sqlite")}}
        service = Service(where, changes)
        try:
            service.wait_for(lambda: service.logged("started"), START_S)
            time.sleep(SETTLE_S)
            began, before = time.monotonic(), scrape(service)
            time.sleep(given.seconds)
            after = scrape(service)
            seconds = time.monotonic() - began
            code = service.terminate(STOP_S)
        finally:
            (given.out / f"service-{cameras}.log").write_text(service.log.read_text())
            service.close()

    def grown(name: str, **labels: str) -> float:
        return total(after, name, **labels) - total(before, name, **labels)

    outcomes = {dict(labels)["outcome"] for n, labels in after if n == "edgecount_frames_total"}
    frames = {o: grown("edgecount_frames_total", outcome=o) for o in sorted(outcomes)}
    each = [v for (n, _), v in after.items() if n == "edgecount_fps"]
    return {
        "cameras": cameras,
        "frames_per_s": frames["processed"] / seconds,
        "wanted_per_s": FPS * cameras,
        "frames": frames,
        "slowest_camera_fps": min(each),
        "latency_ms_at_most": {p: latency_ms(before, after, float(p)) for p in ("0.5", "0.99")},
        "cores": grown("process_cpu_seconds_total") / seconds,
        "resident_mb": total(after, "process_resident_memory_bytes") / 1e6,
        "resident_grown_mb": grown("process_resident_memory_bytes") / 1e6,
        "gpu_process_mb": total(after, "edgecount_gpu_memory_bytes", kind="process") / 1e6,
        "gpu_grown_mb": grown("edgecount_gpu_memory_bytes", kind="process") / 1e6,
        "gpu_utilization": total(after, "edgecount_gpu_utilization_ratio"),
        "crossings": grown("edgecount_crossings_total"),
        "reconnects": grown("edgecount_reconnects_total"),
        "exit": code,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clip")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cameras", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--kind", default="nvdec")
    parser.add_argument("--backend", default="cuda")
    parser.add_argument("--precision", default="fp16")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for cameras in given.cameras:
        rows.append(measure(given, cameras))
        print(json.dumps(rows[-1]), flush=True)
        (given.out / "gpu_service.json").write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
