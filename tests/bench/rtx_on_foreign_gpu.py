"""TensorRT-RTX on a GPU that it does not support: the error that a user sees, and the fallback.

    python tests/bench/rtx_on_foreign_gpu.py --out DIR

Needs an NVIDIA GPU other than SM 7.5, 8.0, 8.6, 8.9 and 12.x (an H100 is 9.0) and the package
tensorrt-rtx-cu13. Checks:

1. ``edgecount build`` refuses before it builds, in one sentence.
2. An engine that was built elsewhere (here: as if without a GPU) does not open, in one sentence.
3. ``edgecount run`` with that backend asked for counts on the CPU instead, and says so; with
   ``auto``, on the next best backend.
4. With ``fallback: false`` it ends, and says why.

Writes rtx_on_foreign_gpu.json and .log under --out; ends with 1 where a check fails.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Tuple

import cv2
import numpy as np

from edgecount.errors import EdgecountError
from edgecount.infer.tensorrt import device, loader, versions
from edgecount.infer.tensorrt.cache import EngineCache
from edgecount.observe import logs
from edgecount.toolchain.build.builder import build
from edgecount.toolchain.build.job import Silent
from edgecount.toolchain.build.request import BuildRequest

RUNTIME = "tensorrt_rtx"
# Lines of a run's output that are worth a look.
TELLING = ("backend_unusable", "engine_", '"started"', '"stopped"', "edgecount:")
CONFIG = """
device: bench
model: {{name: head-n, backend: {backend}, fallback: {fallback}}}
ledger: {{path: {ledger}}}
http: {{enabled: false}}
log: {{level: info, format: json}}
cameras:
  - name: clip
    source: {clip}
    lines: [{{name: middle, from: [0.0, 0.5], to: [1.0, 0.5]}}]
"""


class Check(NamedTuple):
    """One check: whether it went as it should, and what was said."""

    name: str
    passed: bool
    code: int
    told: str


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    logs.configure("warning")
    trt, facts = versions.find(RUNTIME), device.look()
    print(f"{trt.version.label} on {facts.name} (SM {facts.sm}), driver {facts.driver}, "
          f"CUDA {facts.cuda}, Python {sys.version.split()[0]}")  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        os.environ["EDGECOUNT_CACHE"] = str(root / "cache")
        checks = [refused_build(), foreign_engine(trt, root), *runs(root)]
    report(options.out, trt, facts, checks)
    return 0 if all(check.passed for check in checks) else 1


def refused_build() -> Check:
    code, told = edgecount("build", "head-n", "--runtime", RUNTIME, "--precision", "fp16")
    last = told.strip().splitlines()[-1]
    passed = code == 1 and "has no kernels for this GPU" in last and "Traceback" not in told
    return Check("build is refused in one sentence", passed, code, last)


def foreign_engine(trt: versions.TensorRt, root: Path) -> Check:
    """Open an engine of this very version that was built for other GPUs."""
    nothing = device.DeviceFacts("none", None, "none", "none", False)
    request = BuildRequest("head-n", precision="fp16")
    built = build(request, trt, nothing, EngineCache(root / "elsewhere"), Silent())
    try:
        loader.load(built.entry.engine, trt)
    except EdgecountError as error:
        told = str(error).replace(str(root), "…")
        return Check("a foreign engine does not open", "\n" not in told, 1, told)
    return Check("a foreign engine does not open", False, 0, "it opened")


def runs(root: Path) -> List[Check]:
    clip = root / "clip.avi"
    write_clip(clip)
    return [
        run(root, clip, "run falls back to the CPU", "tensorrt", True),
        run(root, clip, "run takes the next best backend", "auto", True),
        run(root, clip, "run without fallback ends", "tensorrt", False),
    ]


def run(root: Path, clip: Path, name: str, backend: str, fallback: bool) -> Check:
    word = str(fallback).lower()
    config = root / f"{backend}-{word}.yaml"
    ledger = config.with_suffix(".db")
    text = CONFIG.format(backend=backend, fallback=word, clip=clip, ledger=ledger)
    config.write_text(text, encoding="utf-8")
    code, told = edgecount("run", "-c", str(config), "--duration", "60")
    shown = [line for line in told.splitlines() if any(word in line for word in TELLING)]
    passed = "Traceback" not in told and bool(shown) and (code == 0) == fallback
    return Check(name, passed, code, "\n       ".join(shown) or told)


def write_clip(path: Path) -> None:
    """Five seconds of noise; what is seen in it does not matter."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (640, 480))
    random = np.random.default_rng(0)
    for _ in range(125):
        writer.write(random.integers(0, 255, (480, 640, 3), np.uint8))
    writer.release()


def edgecount(*arguments: str) -> Tuple[int, str]:
    """Exit code and output of a command."""
    done = subprocess.run(
        [sys.executable, "-m", "edgecount", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=240, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


def report(
    out: Path, trt: versions.TensorRt, facts: device.DeviceFacts, checks: List[Check]
) -> None:
    data: Dict[str, Any] = {
        "runtime": trt.version.label,
        "device": facts.name,
        "sm": facts.sm,
        "driver": facts.driver,
        "cuda": facts.cuda,
        "checks": [check._asdict() for check in checks],
    }
    (out / "rtx_on_foreign_gpu.json").write_text(json.dumps(data, indent=2, ensure_ascii=False))
    lines = [f"{'ok' if c.passed else 'FAILED':7}{c.name} (exit {c.code})\n       {c.told}"
             for c in checks]  # fmt: skip
    (out / "rtx_on_foreign_gpu.log").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    sys.exit(main())
