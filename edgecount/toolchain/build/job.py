"""What the building process is told, and what it tells back: JSON on two pipes."""

from pathlib import Path
from typing import Any, Dict, Optional, Tuple

from typing_extensions import Literal, Protocol

from edgecount.config import Strict
from edgecount.infer.recipe import Recipe
from edgecount.infer.tensorrt.manifest import Precision
from edgecount.infer.tensorrt.profile import Profile

Algorithm = Literal["entropy", "minmax"]
ErrorKind = Literal["config", "model", "engine", "memory"]


class Pictures(Strict):
    """Pictures that TensorRT itself calibrates on.

    Attributes:
        folder: A calibration set, or any folder of pictures.
        recipe: How they are prepared: the same as in the pipeline.
        store: Where TensorRT's scales are kept, and read the next time.
    """

    folder: Path
    recipe: Recipe
    store: Path


class Calibration(Strict):
    """An implicit calibration (TensorRT ≤ 10).

    Attributes:
        algorithm: Which of TensorRT's calibrators.
        cache: The scales in TensorRT's own form, so that it need not run the network.
        pictures: What it runs the network on, where there are no scales.
    """

    algorithm: Algorithm
    cache: Optional[str] = None
    pictures: Optional[Pictures] = None


class Job(Strict):
    """One build.

    Attributes:
        runtime: Python module of TensorRT.
        source: The user's file, for messages.
        onnx: The prepared file that is parsed.
        opset_note: What to add where the parser does not know an operator.
        precision: Of the engine.
        strongly_typed: Whether precisions are those of the file; else flags are set.
        fp16, fp32: Names of the layers that a weakly typed INT8 or FP16 build keeps there.
        profile: Shapes of the input.
        dynamic: Whether the file leaves an axis open, so that it needs the profile.
        workspace: Most scratch memory, bytes.
        dla: Whether layers run on the DLA where they can.
        calibration: For an implicit INT8 build.
        timing_cache: Where timings are kept; None where they are of no use.
        out: The engine's file.
    """

    runtime: str
    source: Path
    onnx: Path
    opset_note: str = ""
    precision: Precision
    strongly_typed: bool
    fp16: Tuple[str, ...] = ()
    fp32: Tuple[str, ...] = ()
    profile: Profile
    dynamic: bool
    workspace: int
    dla: bool = False
    calibration: Optional[Calibration] = None
    timing_cache: Optional[Path] = None
    out: Path


class Emit(Protocol):
    """Sends one event to the parent."""

    def __call__(self, kind: str, **fields: Any) -> None: ...


class Progress(Protocol):
    """Who is told how a build goes on. Phases nest: a phase names the one it is part of."""

    def phase(self, name: str, parent: Optional[str], steps: int) -> None:
        """A phase of so many steps begins."""
        ...

    def step(self, name: str, done: int) -> None:
        """So many steps of a phase are done."""
        ...

    def finish(self, name: str) -> None:
        """A phase is over."""
        ...

    def say(self, text: str) -> None:
        """A line for the reader."""
        ...


class Silent:
    """Tells nobody."""

    def phase(self, name: str, parent: Optional[str], steps: int) -> None: ...

    def step(self, name: str, done: int) -> None: ...

    def finish(self, name: str) -> None: ...

    def say(self, text: str) -> None: ...


def forward(event: Dict[str, Any], progress: Progress) -> None:
    """Tell ``progress`` of one event of the building process."""
    kind = event["kind"]
    if kind == "phase":
        progress.phase(event["name"], event["parent"], event["steps"])
    elif kind == "step":
        progress.step(event["name"], event["done"])
    elif kind == "finish":
        progress.finish(event["name"])
    elif kind == "say":
        progress.say(event["text"])
