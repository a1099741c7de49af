"""INT8 against FP32 on this processor: time at batch 1, and distance from the reference.

    python tests/bench/int8_cpu.py head-n head-s [--out DIR]

Times are taken in turns, one thread each, medians. The last lines are the table.
"""

import argparse
import json
from pathlib import Path
from time import perf_counter
from typing import Dict, List

import numpy as np
import onnxruntime

from edgecount.infer import cpu_features
from edgecount.infer import recipe as recipes
from edgecount.toolchain.quantize.reference import SessionNetwork, differences

ROUNDS = 60
PICTURES = 4


def picture(side: int, seed: int) -> np.ndarray:
    """Smooth noise: more like a photograph than white noise is."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (1, 3, side // 16, side // 16)).astype(np.float32)
    return coarse.repeat(16, 2).repeat(16, 3)


def measure(name: str) -> Dict[str, object]:
    path, recipe = recipes.find(name, None)
    assert recipe is not None
    side = recipe.input.width
    quantised = path.with_name(f"{path.stem}.int8.onnx")
    networks = {
        "fp32": SessionNetwork(path, fuse=True),
        "int8": SessionNetwork(quantised, fuse=True),
        "as written": SessionNetwork(quantised, fuse=False),
    }
    x = picture(side, 0)
    times: Dict[str, List[float]] = {key: [] for key in networks}
    for network in networks.values():
        network.run(x)
    for _ in range(ROUNDS):
        for key, network in networks.items():
            started = perf_counter()
            network.run(x)
            times[key].append(1e3 * (perf_counter() - started))
    inputs = [picture(side, seed) for seed in range(PICTURES)]
    wanted = np.concatenate([networks["as written"].run(one) for one in inputs])
    got = np.concatenate([networks["int8"].run(one) for one in inputs])
    away = differences(wanted, got, 1)
    median = {key: float(np.median(values)) for key, values in times.items()}
    return {
        "model": name,
        "ms": median,
        "speedup": median["fp32"] / median["int8"],
        "steps_p999": away.steps_p999,
        "within_one_step": away.within_one,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="+")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    features = cpu_features.read()
    rows = [measure(name) for name in asked.models]
    found = {"cpu": features.describe(), "onnxruntime": onnxruntime.__version__, "rows": rows}
    if asked.out is not None:
        (asked.out / "int8_cpu.json").write_text(json.dumps(found, indent=1))
    print(f"{features.describe()}; ONNX Runtime {onnxruntime.__version__}")
    for row in rows:
        ms = row["ms"]
        print(
            f"{row['model']}: FP32 {ms['fp32']:.2f} ms, INT8 {ms['int8']:.2f} ms "
            f"({row['speedup']:.2f}x), as written {ms['as written']:.2f} ms; output within one "
            f"step {row['within_one_step']:.4f}, 99.9 % within {row['steps_p999']:.1f} steps"
        )


if __name__ == "__main__":
    main()
