#!/usr/bin/env python3
"""Our calibrators and ONNX Runtime's: time, memory, and the AP50 of what they make.

    calibrators.py --data DIR [--model head-n] [--images 100] [--judged 300] [--turns 3]
                   [--size 416] [--memory 800] [--out JSON]

``DIR`` is a folder in YOLO format. The first ``--images`` pictures, evenly spread over it,
calibrate; ``--judged`` others judge. Each calibration runs in a process of its own (so that its
peak memory is its own), in turns, from files on disk to a table; the least time counts. Both get
the same operators to calibrate, Conv and Add. ONNX Runtime keeps all activations of a
``collect_data`` in memory, so it gets the pictures in portions of ``--portion``.

Every table is written into the same Q/DQ file by the same writer, and judged in ONNX Runtime
without graph optimisations, where the arithmetic of the file is exact.
"""

import argparse
import contextlib
import io
import json
import multiprocessing
import platform
import resource
import sys
import tempfile
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from time import perf_counter
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import cv2
import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import calibrate as theirs

from edgecount.infer.detector import OnnxDetector, Thresholds
from edgecount.infer.onnxruntime import OrtNetwork
from edgecount.infer.recipe import Recipe
from edgecount.toolchain.evaluate import detect
from edgecount.toolchain.evaluate.average_precision import Found, average_precision
from edgecount.toolchain.quantize import calibrate, watched
from edgecount.toolchain.quantize.activations import GatherSettings, gather
from edgecount.toolchain.quantize.model_file import find
from edgecount.toolchain.quantize.qdq import write_qdq
from edgecount.toolchain.quantize.table import CalibrationTable
from edgecount.toolchain.yolo_files import find_pairs

OPERATORS = ("Conv", "Add")
Amax = Dict[str, float]


class Job(NamedTuple):
    """What one calibration works on."""

    model: Path
    recipe: Recipe
    pictures: List[Path]
    size: Tuple[int, int]
    portion: int


class Cost(NamedTuple):
    """What it took: seconds, peak MiB of the process, tensors, and the result."""

    seconds: float
    peak_mib: float
    amax: Amax


def ours(job: Job, method: str, options: Dict[str, Any]) -> Amax:
    images = (cv2.imread(str(path)) for path in job.pictures)
    tensors = watched.tensors_read(onnx.load(str(job.model)), OPERATORS)
    gathered = gather(job.model, images, job.recipe, tensors, GatherSettings(size=job.size))
    return calibrate.choose(gathered, method, options)[0].amax


def onnxruntimes(job: Job, method: str, options: Dict[str, Any]) -> Amax:
    kind = {
        "entropy": theirs.CalibrationMethod.Entropy,
        "percentile": theirs.CalibrationMethod.Percentile,
        "minmax": theirs.CalibrationMethod.MinMax,
    }[method]
    with tempfile.TemporaryDirectory() as folder:
        calibrator = theirs.create_calibrator(
            str(job.model),
            list(OPERATORS),
            str(Path(folder) / "augmented.onnx"),
            kind,
            extra_options={"symmetric": True, **options},
        )
        for start in range(0, len(job.pictures), job.portion):
            calibrator.collect_data(Reader(job, job.pictures[start : start + job.portion]))
        data = calibrator.compute_data()
    return {name: float(np.abs(data[name].range_value).max()) for name in data.keys()}  # noqa: SIM118


class Reader(theirs.CalibrationDataReader):
    """Pictures prepared by the pipeline's own function, one at a time."""

    def __init__(self, job: Job, pictures: Sequence[Path]) -> None:
        network = OrtNetwork(job.model)
        detector = OnnxDetector(network, job.recipe, size=job.size, thresholds=Thresholds(0.1, 0.6))
        self._name = onnx.load(str(job.model)).graph.input[0].name
        self._inputs: Iterator[np.ndarray] = (
            detector.network_input(cv2.imread(str(path))) for path in pictures
        )

    def get_next(self) -> Optional[Dict[str, np.ndarray]]:
        batch = next(self._inputs, None)
        return None if batch is None else {self._name: batch}


VARIANTS: Dict[str, Tuple[Callable[[Job, str, Dict[str, Any]], Amax], str, Dict[str, Any]]] = {
    "entropy, edgecount": (ours, "entropy", {}),
    "entropy, onnxruntime": (onnxruntimes, "entropy", {}),
    "percentile 99.9, edgecount": (ours, "percentile", {"percentile": 99.9}),
    "percentile 99.9, onnxruntime": (onnxruntimes, "percentile", {"percentile": 99.9}),
    "percentile 99.999, edgecount": (ours, "percentile", {"percentile": 99.999}),
    "percentile 99.999, onnxruntime": (onnxruntimes, "percentile", {"percentile": 99.999}),
    "minmax, edgecount": (ours, "minmax", {}),
    "minmax, onnxruntime": (onnxruntimes, "minmax", {}),
}


def measured(job: Job, name: str) -> Cost:
    """Run one variant in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure, (job, name))


def _measure(job: Job, name: str) -> Cost:
    how, method, options = VARIANTS[name]
    started = perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):  # onnxruntime's calibrators print
        amax = how(job, method, options)
    seconds = perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Cost(seconds, peak, amax)


class ExactNetwork:
    """A network in ONNX Runtime without optimisations: Q/DQ in plain float arithmetic."""

    def __init__(self, model: onnx.ModelProto) -> None:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._input = self._session.get_inputs()[0].name
        self.input_shape = tuple(self._session.get_inputs()[0].shape)
        self.output_shape = tuple(self._session.get_outputs()[0].shape)

    def run(self, batch: np.ndarray) -> np.ndarray:
        return self._session.run(None, {self._input: batch})[0]


def judged(
    model: onnx.ModelProto, job: Job, pairs: Sequence[Tuple[Path, Path]]
) -> Dict[str, float]:
    """AP of a model over labelled pictures."""
    detector = OnnxDetector(
        ExactNetwork(model),
        job.recipe,
        size=job.size,
        thresholds=Thresholds(detect.LOWEST, job.recipe.nms_iou),
    )
    truths, found = [], []
    for picture, labels in pairs:
        image = detect.read_picture(picture)
        truths.append(
            detect._truth(labels, image.shape[1], image.shape[0], len(job.recipe.classes))
        )
        (seen,) = detector.detect([image])
        found.append(Found(seen.boxes, seen.scores, seen.classes.astype(np.int64)))
    return average_precision(truths, found)


def spread(pairs: Sequence[Any], count: int) -> List[Any]:
    return [pairs[i * len(pairs) // count] for i in range(min(count, len(pairs)))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="head-n")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--judged", type=int, default=300)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--size", type=int)
    parser.add_argument("--portion", type=int, default=10)
    parser.add_argument("--memory", type=int, help="also peak memory at 640 with so many pictures")
    parser.add_argument("--only", nargs="*", default=list(VARIANTS))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    path, recipe = find(arguments.model)
    side = arguments.size
    size = (side, side) if side else (recipe.input.width, recipe.input.height)
    pairs = find_pairs(arguments.data)
    calibrating = spread(pairs, arguments.images)
    judging = spread([p for p in pairs if p not in calibrating], arguments.judged)
    job = Job(path, recipe, [p for p, _ in calibrating], size, arguments.portion)
    rows = costs(job, arguments.only, arguments.turns)
    if arguments.judged:
        add_accuracy(rows, job, judging)
    if arguments.memory:
        many = [pairs[i % len(pairs)][0] for i in range(arguments.memory)]
        large = replace_size(job, many)
        cost = measured(large, "entropy, edgecount")
        rows[f"entropy, edgecount, {arguments.memory} at 640"] = {
            "seconds": cost.seconds,
            "peak_mib": cost.peak_mib,
        }
    report(rows, arguments, size)


def replace_size(job: Job, pictures: List[Path]) -> Job:
    return job._replace(pictures=pictures, size=(640, 640))


def costs(job: Job, names: Sequence[str], turns: int) -> Dict[str, Dict[str, Any]]:
    """Least time and greatest peak of each variant over some turns."""
    rows: Dict[str, Dict[str, Any]] = {}
    for turn in range(turns):
        for name in names:
            cost = measured(job, name)
            row = rows.setdefault(name, {"seconds": cost.seconds, "peak_mib": 0.0})
            row["seconds"] = min(row["seconds"], cost.seconds)
            row["peak_mib"] = max(row["peak_mib"], cost.peak_mib)
            row["tensors"], row["amax"] = len(cost.amax), cost.amax
            print(f"turn {turn + 1}: {name}: {cost.seconds:.1f} s", file=sys.stderr)
    return rows


def add_accuracy(
    rows: Dict[str, Dict[str, Any]], job: Job, judging: Sequence[Tuple[Path, Path]]
) -> None:
    model = onnx.load(str(job.model))
    table = CalibrationTable("", "", 0, "", {}, {})
    for name in list(rows):
        quantised = write_qdq(model, replace(table, amax=rows[name].pop("amax")))
        rows[name].update(judged(quantised, job, judging))
        print(f"{name}: AP50 {rows[name]['ap50']:.4f}", file=sys.stderr)
    rows["FP32"] = dict(judged(model, job, judging))


def report(rows: Dict[str, Dict[str, Any]], arguments: argparse.Namespace, size: Any) -> None:
    versions = {name: metadata.version(name) for name in ("numpy", "onnx", "onnxruntime")}
    print(
        f"{arguments.model} at {size[0]}×{size[1]}, {arguments.images} pictures calibrate, "
        f"{arguments.judged} judge; {platform.machine()}, {multiprocessing.cpu_count()} cores, "
        f"Python {platform.python_version()}, {versions}\n"
    )
    print("| calibrator | s | peak MiB | tensors | AP50 | AP50-95 |\n|---|---|---|---|---|---|")
    for name, row in rows.items():
        cells = [
            f"{row[key]:{form}}" if key in row else ""
            for key, form in (
                ("seconds", ".1f"),
                ("peak_mib", ".0f"),
                ("tensors", "d"),
                ("ap50", ".4f"),
                ("ap50_95", ".4f"),
            )
        ]
        print(f"| {name} | {' | '.join(cells)} |")
    if arguments.out:
        for row in rows.values():
            row.pop("amax", None)
        arguments.out.write_text(json.dumps({"versions": versions, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
