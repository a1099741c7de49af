#!/usr/bin/env python3
"""How long the CUDA kernels take, beside what they replace.

    gpu_kernels.py --out DIR [--only nms|preprocess] [--quick]

Needs a GPU; torch and torchvision for the comparison. Times are medians over replays of a
CUDA graph that holds the work several times, between events, so they hold the gaps between
kernels and not the launches from Python. Writes gpu_kernels.json and prints a table.
"""

import argparse
import itertools
import json
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support import nms_cases
from support.nms_run import NmsRun
from support.pictures import Picture, PreprocessRun, picture

from edgecount.infer.cuda.driver import Device, Stream
from edgecount.infer.detector import Thresholds
from edgecount.infer.letterbox import Letterbox
from edgecount.infer.recipe import InputRecipe

THRESHOLDS = Thresholds(0.25, 0.6)
REPEATS, REPLAYS, WARM_UPS = 20, 30, 3
Row = Dict[str, Any]
SIZES = ((640, 640), (1280, 1280))  # 8,400 and 33,600 cells


def timed(
    device: Device, stream: Stream, work: Callable[[], None], repeats: int = REPEATS
) -> float:
    """Median microseconds of ``work`` on the device."""

    def several() -> None:
        for _ in range(repeats):
            work()

    work()
    stream.synchronize()
    graph = device.graph(stream, several)
    start, end = device.event(timing=True), device.event(timing=True)
    times = []
    for i in range(WARM_UPS + REPLAYS):
        stream.record(start)
        graph.launch(stream)
        stream.record(end)
        stream.synchronize()
        if i >= WARM_UPS:
            times.append(1e6 * end.since(start) / repeats)
    graph.close()
    return statistics.median(times)


def nms_rows(device: Device, stream: Stream, quick: bool) -> List[Row]:
    """NMS and decoding by heads, candidates and batch."""
    rows = []
    for size in SIZES:
        for heads in (20, 300, 1000):
            for batch in (1, 8, 32):
                if quick and batch == 8:
                    continue
                rows.append(nms_row(device, stream, "ltrb", size, heads, batch))
                print(rows[-1], flush=True)
    for head in nms_cases.HEADS:
        rows.append(nms_row(device, stream, head, (640, 640), 300, 1))
        print(rows[-1], flush=True)
    return rows


def nms_row(
    device: Device, stream: Stream, head: str, size: Tuple[int, int], heads: int, batch: int
) -> Row:
    random = np.random.default_rng(heads)
    recipe = nms_cases.recipe(head, size)
    made = [nms_cases.output(recipe, size, heads, random) for _ in range(min(batch, 4))]
    outputs = [made[i % len(made)] for i in range(batch)]
    boxes = [Letterbox.fit(1920, 1080, *size)] * batch
    nms = NmsRun(device, stream, recipe, size, outputs, thresholds=THRESHOLDS)
    results = nms.run(boxes, [-1] * batch)
    row: Row = {
        "head": head,
        "rows": nms_cases.rows_of(recipe, size),
        "heads": heads,
        "batch": batch,
        "candidates": candidates_of(recipe, size, outputs[0]),
        "kept": len(results[0]),
        "us": timed(device, stream, nms.launch),
    }
    row.update(parts(device, stream, nms))
    if head == "ltrb":
        row["torchvision_us"] = torchvision_us(recipe, size, outputs)
    nms.close()
    return row


def parts(device: Device, stream: Stream, nms: NmsRun) -> Row:
    """Each of the two kernels alone, on what is in memory."""
    times = {}
    for kernel in ("decode_head", "suppress"):
        only = _Only(stream, kernel)
        nms.stream = only
        times[f"{kernel}_us"] = timed(device, stream, nms.launch)
    nms.stream = stream
    return times


class _Only:
    """A stream that launches one kernel and lets the others out."""

    def __init__(self, stream: Stream, kernel: str) -> None:
        self._stream, self._kernel = stream, kernel

    def launch(self, function: Any, *arguments: Any) -> None:
        if function.name == self._kernel:
            self._stream.launch(function, *arguments)


def candidates_of(recipe: Any, size: Tuple[int, int], output: Any) -> int:
    return len(decoded(recipe, size, output, THRESHOLDS.score).scores)


def decoded(recipe: Any, size: Tuple[int, int], output: Any, threshold: float) -> Any:
    from edgecount.infer.detector import _head

    return _head(recipe).decode(output, *size, threshold)


def torchvision_us(recipe: Any, size: Tuple[int, int], outputs: List[Any]) -> float:
    """What torchvision takes for filter and NMS; decoded boxes and scores are given to it."""
    try:
        import torch
        from torchvision.ops import nms
    except ImportError:
        return float("nan")
    every = [decoded(recipe, size, o, 1e-6) for o in outputs[:4]]
    given = [
        (torch.from_numpy(c.boxes).cuda(), torch.from_numpy(c.scores).cuda())
        for c in (every * len(outputs))[: len(outputs)]
    ]

    def once() -> None:
        for boxes, scores in given:
            keep = scores >= THRESHOLDS.score
            some, some_scores = boxes[keep], scores[keep]
            some[nms(some, some_scores, THRESHOLDS.iou)]
        torch.cuda.synchronize()

    times = []
    for _ in range(WARM_UPS + 15):
        started = time.perf_counter()
        once()
        times.append(time.perf_counter() - started)
    return 1e6 * statistics.median(times[WARM_UPS:])


# What cameras deliver; the batch holds as many of each.
PICTURES = ((1920, 1080), (1280, 720), (2560, 1440), (1920, 1080))
VARIANTS = ((2, 2), (1, 2), (1, 4), (2, 1), (2, 4), (4, 1), (4, 2))
COLD = 8  # single pictures in turns: more than the L2 cache holds


def preprocess_rows(device: Device, stream: Stream, bandwidth: float, quick: bool) -> List[Row]:
    """One 1080p picture, and a batch of 32 of mixed sizes, in each variant of the kernel."""
    random = np.random.default_rng(0)
    single = {x: [picture(1920, 1080, x, random)] for x in ("bgr", "nv12")}
    batch = {
        x: [picture(*PICTURES[i % 4], x, random) for i in range(4)] * 8 for x in ("bgr", "nv12")
    }
    batch["mixed"] = [p for pair in zip(batch["bgr"], batch["nv12"]) for p in pair][:32]
    rows = []
    for name, pictures in [*single.items(), *batch.items()]:
        for dtype in (np.float32, np.float16):
            for variant in VARIANTS[:1] if quick else VARIANTS:
                rows.append(preprocess_row(device, stream, name, pictures, dtype, variant))
                rows[-1]["times_copy"] = rows[-1]["us"] * bandwidth * 1e-6 / rows[-1]["bytes"]
                print(rows[-1], flush=True)
    return rows


def preprocess_row(
    device: Device,
    stream: Stream,
    name: str,
    pictures: List[Picture],
    dtype: Any,
    variant: Tuple[int, int],
) -> Row:
    input_ = InputRecipe(width=640, height=640, color="rgb", scale=1 / 255)
    runs = [
        PreprocessRun(device, stream, pictures, input_, dtype, pixels=variant[0], steps=variant[1])
        for _ in range(COLD if len(pictures) == 1 else 1)
    ]
    turns = itertools.cycle(runs)
    micros = timed(device, stream, lambda: next(turns).launch())
    moved = runs[0].bytes + sum(touched(p, (640, 640)) for p in pictures)
    for run in runs:
        run.close()
    return {
        "pictures": name,
        "batch": len(pictures),
        "output": np.dtype(dtype).name,
        "pixels": variant[0],
        "steps": variant[1],
        "us": micros,
        "bytes": moved,
        "gb_per_s": moved / micros / 1e3,
    }


def touched(shown: Picture, size: Tuple[int, int]) -> int:
    """Bytes of the rows of a picture that bilinear sampling reads."""
    box = Letterbox.fit(shown.width, shown.height, *size)
    at = (np.arange(box.scaled_height) + 0.5) * shown.height / box.scaled_height - 0.5
    upper = np.clip(np.floor(at).astype(int), 0, shown.height - 1)
    rows = np.unique(np.concatenate([upper, np.minimum(upper + 1, shown.height - 1)]))
    if shown.layout == "bgr":
        return 3 * shown.width * len(rows)
    return shown.width * (len(rows) + len(np.unique(rows // 2)))


def copy_bandwidth(device: Device, stream: Stream) -> float:
    """Bytes per second, read and written, of a large copy on the device."""
    size = 1 << 30
    source, target = device.allocate(size), device.allocate(size)
    stream.fill(source.pointer, 7, size)
    micros = timed(device, stream, lambda: stream.copy(target.pointer, source.pointer, size), 4)
    source.close()
    target.close()
    return 2 * size / (1e-6 * micros)


def table(rows: List[Row]) -> str:
    """As Markdown."""
    if not rows:
        return ""
    keys = list(dict.fromkeys(k for row in rows for k in row))
    lines = ["| " + " | ".join(keys) + " |", "|" + " --- |" * len(keys)]
    for row in rows:
        cells = (row.get(k, "") for k in keys)
        lines.append(
            "| " + " | ".join(f"{c:.2f}" if isinstance(c, float) else str(c) for c in cells) + " |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", choices=["nms", "preprocess"])
    parser.add_argument("--quick", action="store_true", help="leave batch 8 and variants out")
    given = parser.parse_args()
    device = Device.open()
    stream = device.stream()
    properties = device.properties
    result: Dict[str, Any] = {
        "device": properties.name,
        "driver": ".".join(map(str, properties.driver)),
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
        "copy_gb_per_s": copy_bandwidth(device, stream) / 1e9,
    }
    if given.only != "preprocess":
        result["nms"] = nms_rows(device, stream, given.quick)
    if given.only != "nms":
        bandwidth = 1e9 * result["copy_gb_per_s"]
        result["preprocess"] = preprocess_rows(device, stream, bandwidth, given.quick)
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "gpu_kernels.json").write_text(json.dumps(result, indent=1))
    print({k: v for k, v in result.items() if not isinstance(v, list)})
    for name in ("nms", "preprocess"):
        print(table(result.get(name, [])))


if __name__ == "__main__":
    main()
