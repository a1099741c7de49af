"""Polygraphy, where it is installed: TensorRT's own layers against ONNX Runtime's."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Callable, Iterable, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from edgecount.config import ModelSettings
from edgecount.errors import ConfigError, EngineError
from edgecount.infer import detector as detectors
from edgecount.infer.onnxruntime import open_network
from edgecount.infer.tensorrt import plan_file
from edgecount.infer.tensorrt.versions import TensorRt
from edgecount.records import Float32Array, UInt8Array
from edgecount.toolchain.build import onnx_file

_RTX_VARIABLE = "POLYGRAPHY_USE_TENSORRT_RTX"
_FLAGS = {"fp16": ["--fp16"], "int8": ["--fp16", "--int8"]}
_LOADER = """\
import numpy


def load_data():
    for batch in numpy.load({pictures!r}):
        yield {{{name!r}: batch}}
"""

Which = Callable[[str], Optional[str]]


def run(
    model: Path,
    pictures: Iterable[UInt8Array],
    trt: TensorRt,
    *,
    which: Which = shutil.which,
    call: Callable[..., int] = subprocess.call,
) -> int:
    """Let Polygraphy compare every layer of a model in both runtimes, on these pictures.

    Args:
        model: An ONNX file; for INT8 the Q/DQ file.
        pictures: (H, W, 3) uint8 BGR.
        trt: This machine's TensorRT.
        which: Finds a program.
        call: Runs one.

    Returns:
        Polygraphy's exit code: 0 where all layers agree within its tolerances.

    Raises:
        ConfigError: ``model`` is an engine.
        ModelError: It cannot be loaded.
        EngineError: Polygraphy is not installed.
    """
    if model.suffix in plan_file.SUFFIXES:
        raise ConfigError(f"{model} is an engine; give Polygraphy the ONNX file it was built from")
    program = find(which)
    file = onnx_file.read(model)
    finder = detectors.create(ModelSettings(path=model), open_network)[0]
    batches = np.stack([finder.network_input(picture) for picture in pictures])
    with tempfile.TemporaryDirectory() as folder:
        name = file.model.graph.input[0].name
        arguments = command(
            program,
            model,
            write_loader(Path(folder), name, batches),
            (name, batches.shape[1:]),
            _precision(trt, file.quantised),
        )
        return call(arguments, env={**os.environ, **environment(trt)})


def find(which: Which = shutil.which) -> str:
    """Where Polygraphy is. Raises EngineError where it is not installed."""
    # Beside this Python first: an environment need not be activated.
    program = which(str(Path(sys.executable).with_name("polygraphy"))) or which("polygraphy")
    if program is None:
        raise EngineError(
            "Polygraphy is not installed: pip install polygraphy (0.53 needs TensorRT 8.5 or newer)"
        )
    return program


def command(
    program: str,
    model: Path,
    loader: Path,
    given: Tuple[str, Sequence[int]],
    precision: Optional[str],
) -> List[str]:
    """The command that compares every layer.

    Args:
        program: Polygraphy.
        model: The ONNX file.
        loader: See :func:`write_loader`.
        given: Name and shape of the input.
        precision: ``fp16`` or ``int8``: what TensorRT may use besides FP32; None where it
            takes types from the file.
    """
    name, shape = given
    marked = ["--trt-outputs", "mark", "all", "--onnx-outputs", "mark", "all"]
    types = ["--strongly-typed"] if precision is None else _FLAGS[precision]
    shapes = ["--input-shapes", f"{name}:{list(shape)}".replace(" ", "")]
    return [program, "run", str(model), "--trt", "--onnxrt", *marked, *types, *shapes,
            "--data-loader-script", str(loader)]  # fmt: skip


def write_loader(folder: Path, name: str, batches: Float32Array) -> Path:
    """Write a script that feeds (N, 1, 3, H, W) to the input ``name``, one after the other."""
    pictures = folder / "pictures.npy"
    np.save(pictures, batches)
    script = folder / "pictures.py"
    script.write_text(_LOADER.format(pictures=str(pictures), name=name), encoding="utf-8")
    return script


def environment(trt: TensorRt) -> Mapping[str, str]:
    """What tells Polygraphy which TensorRT to import."""
    return {_RTX_VARIABLE: "1"} if trt.version.product == "tensorrt_rtx" else {}


def _precision(trt: TensorRt, quantised: bool) -> Optional[str]:
    if not trt.features.weakly_typed:
        return None
    return "int8" if quantised else "fp16"
