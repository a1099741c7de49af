"""INT8 against FP32 on this processor: time at batch 1, and distance from the reference.

    python tests/bench/int8_cpu.py head-n head-s [--threads 1 4] [--rounds 60] [--out DIR]

A model is a shipped one's name, or an ONNX file, whose INT8 file lies beside it or is left out.
Times are taken in turns: medians of the clock, and of the process's own time, which other work on
the machine does not add to. The last lines are the table. ``ORT uint8`` is the INT8 file with
unsigned activations where they are never negative. OpenVINO is left out where it is not installed.
"""

import argparse
import json
from pathlib import Path
from time import perf_counter, process_time
from typing import Callable, Dict, List, Tuple

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from edgecount.errors import MissingExtraError
from edgecount.infer import cpu_features, openvino
from edgecount.infer import recipe as recipes
from edgecount.infer.openvino import OpenVinoNetwork
from edgecount.toolchain.quantize.reference import (
    SessionNetwork,
    differences,
    signal_to_noise,
)

ROUNDS = 60
PICTURES = 4
SIDE = 416
REFERENCE = "as written"
NEVER_NEGATIVE = ("Relu", "Sigmoid", "Softmax", "Exp")
KEEPS_SIGN = (
    *("Concat", "Add", "Mul", "MaxPool", "AveragePool", "GlobalAveragePool", "Resize", "Slice"),
    *("Split", "Transpose", "Reshape", "Cast", "Identity", "DequantizeLinear", "QuantizeLinear"),
)

Run = Callable[[np.ndarray], np.ndarray]


def picture(side: int, seed: int) -> np.ndarray:
    """Smooth noise: more like a photograph than white noise is."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (1, 3, side // 16, side // 16)).astype(np.float32)
    return coarse.repeat(16, 2).repeat(16, 3)


def unsigned(model: onnx.ModelProto) -> int:
    """Make activations that are never negative uint8, zero point 0; their number.

    The scale stays, so nothing changes up to 127 steps, and values up to 255 are not clipped.
    """
    makers = {name: node for node in model.graph.node for name in node.output}
    stored = {tensor.name: tensor for tensor in model.graph.initializer}

    def positive(name: str) -> bool:
        node = makers.get(name)
        if node is None or node.op_type not in NEVER_NEGATIVE + KEEPS_SIGN:
            return False
        several = node.op_type in ("Concat", "Add", "Mul")
        inputs = node.input if several else node.input[:1]
        return node.op_type in NEVER_NEGATIVE or all(map(positive, inputs))

    found = [n for n in model.graph.node if n.op_type == "QuantizeLinear"]
    found = [n for n in found if n.input[0] not in stored and positive(n.input[0])]
    for node in found:
        zero = stored[node.input[2]]
        values = numpy_helper.to_array(zero).astype(np.uint8)
        zero.CopyFrom(numpy_helper.from_array(values, zero.name))
    del model.graph.value_info[:]
    return len(found)


def files(name: str) -> Tuple[Path, Path, int]:
    """FP32 file, INT8 file (which may not exist), side of the input."""
    if Path(name).is_file():
        return Path(name), Path(name).with_suffix(".int8.onnx"), SIDE
    path, recipe = recipes.find(name, None)
    assert recipe is not None
    return path, path.with_name(f"{path.stem}.int8.onnx"), recipe.input.width


def networks(path: Path, quantised: Path, threads: int) -> Dict[str, Run]:
    """What runs the model, by name."""
    runs: Dict[str, Run] = {"ORT FP32": SessionNetwork(path, fuse=True, threads=threads).run}
    others = {"OV FP32": path}
    if quantised.is_file():
        loaded = onnx.load(str(quantised))
        unsigned(loaded)
        runs[REFERENCE] = SessionNetwork(quantised, fuse=False, threads=threads).run
        runs["ORT INT8"] = SessionNetwork(quantised, fuse=True, threads=threads).run
        runs["ORT uint8"] = SessionNetwork(loaded, fuse=True, threads=threads).run
        others["OV INT8"] = quantised
    try:
        runs.update({k: OpenVinoNetwork(p, threads=threads).run for k, p in others.items()})
    except MissingExtraError as error:
        print(error)
    return runs


def measure(name: str, threads: int, rounds: int) -> Dict[str, object]:
    path, quantised, side = files(name)
    runs = networks(path, quantised, threads)
    x = picture(side, 0)
    clock: Dict[str, List[float]] = {key: [] for key in runs}
    used: Dict[str, List[float]] = {key: [] for key in runs}
    for turn in range(rounds + 2):
        for key, run in runs.items():
            run(x)  # warms the caches that the one before has emptied
            started, begun = perf_counter(), process_time()
            run(x)
            if turn >= 2:
                used[key].append(1e3 * (process_time() - begun))
                clock[key].append(1e3 * (perf_counter() - started))
    return {
        "model": path.stem,
        "threads": threads,
        "ms": {key: float(np.median(values)) for key, values in clock.items()},
        "best_ms": {key: min(values) for key, values in clock.items()},
        "cpu_ms": {key: float(np.median(values)) for key, values in used.items()},
        "away": distances(runs, [picture(side, seed) for seed in range(PICTURES)]),
    }


def distances(runs: Dict[str, Run], inputs: List[np.ndarray]) -> Dict[str, Dict[str, float]]:
    """How far each INT8 run is away from the reference, and from FP32."""
    outputs = {key: np.concatenate([run(one) for one in inputs]) for key, run in runs.items()}
    exact, found = outputs["ORT FP32"], {}
    for key, output in outputs.items():
        wanted = outputs[REFERENCE] if key.endswith(("INT8", "uint8")) else exact
        away = differences(wanted, output, 1)
        found[key] = {
            "steps_p999": away.steps_p999,
            "within_one_step": away.within_one,
            "db": signal_to_noise([wanted], [output]),
            "db_of_fp32": signal_to_noise([exact], [output]),
        }
    return found


def table(row: Dict[str, object]) -> None:
    print(f"\n{row['model']}, {row['threads']} threads")
    ms, cpu, away = row["ms"], row["cpu_ms"], row["away"]
    print(f"{'':12}{'ms':>8}{'best':>8}{'cpu ms':>8}{'speedup':>9}{'dB':>7}{'dB(FP32)':>10}")
    for key, value in ms.items():
        print(
            f"{key:12}{value:8.2f}{row['best_ms'][key]:8.2f}{cpu[key]:8.2f}"
            f"{ms['ORT FP32'] / value:9.2f}{away[key]['db']:7.1f}{away[key]['db_of_fp32']:10.1f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="+")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    features = cpu_features.read()
    rows = [
        measure(name, threads, asked.rounds) for name in asked.models for threads in asked.threads
    ]
    try:
        version = openvino.load().get_version()
    except MissingExtraError:
        version = "none"
    versions = {"onnxruntime": onnxruntime.__version__, "openvino": version}
    if asked.out is not None:
        text = json.dumps({"cpu": features.describe(), **versions, "rows": rows}, indent=1)
        (asked.out / "int8_cpu.json").write_text(text)
    print(f"{features.describe()}; {versions}")
    for row in rows:
        table(row)


if __name__ == "__main__":
    main()
