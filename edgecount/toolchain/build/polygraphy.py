"""Polygraphy, where it is installed: TensorRT's own layers against ONNX Runtime's."""

import shutil
from pathlib import Path
from typing import Callable, List, Optional, Tuple

from edgecount.errors import EngineError


def command(
    model: Path,
    input_name: str,
    shape: Optional[Tuple[int, int, int, int]],
    precision: str,
    which: Callable[[str], Optional[str]] = shutil.which,
) -> List[str]:
    """The command that compares every layer of a model in both runtimes.

    Args:
        model: The ONNX file; for INT8 the Q/DQ file.
        input_name: Of its input.
        shape: Of its input, where the file leaves it open.
        precision: ``fp32``, ``fp16`` or ``int8``: what TensorRT may use.
        which: Finds a program.

    Raises:
        EngineError: Polygraphy is not installed.
    """
    program = which("polygraphy")
    if program is None:
        raise EngineError(
            "Polygraphy is not installed: pip install polygraphy (0.53 needs TensorRT 8.5 or newer)"
        )
    flags = {"fp32": [], "fp16": ["--fp16"], "int8": ["--fp16", "--int8"]}[precision]
    marked = ["--trt-outputs", "mark", "all", "--onnx-outputs", "mark", "all"]
    shapes = ["--input-shapes", f"{input_name}:{list(shape)}".replace(" ", "")] if shape else []
    return [program, "run", str(model), "--trt", "--onnxrt", *marked, *flags, *shapes]
