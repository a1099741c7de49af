"""How far one form of a model is from another: layer by layer, at the output, and in detections.

The reference is usually the FP32 file in ONNX Runtime. Of an engine only the output can be
seen; layers of TensorRT itself are compared by Polygraphy where it is installed.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Mapping, Sequence, Tuple

import cv2
import numpy as np
import onnx
import onnxruntime

from edgecount.config import ModelSettings
from edgecount.errors import ConfigError, ModelError
from edgecount.infer import detector as detectors
from edgecount.infer.detector import OnnxDetector
from edgecount.infer.onnxruntime import open_network
from edgecount.infer.tensorrt import host, plan_file
from edgecount.records import Detections, Float32Array, UInt8Array
from edgecount.toolchain.onnx_files import read_onnx
from edgecount.toolchain.quantize import equalize

_SAME_IOU = 0.5
_FATAL_ONLY = 4
# Nodes that only change how numbers are written down.
_SILENT = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "Cast", "Constant", "Shape", "Gather", "Identity"}
)
_TINY = 1e-12
_ONE = np.float32(1.0)


@dataclass(frozen=True)
class TensorDifference:
    """How far a tensor is from the reference's, over all pictures.

    Attributes:
        name: Of the tensor, in both files.
        made_by: The node that makes it: its name and operator.
        largest: Largest absolute difference.
        relative: Root of mean squared difference ÷ root of mean squared reference.
        cosine: Cosine of the angle between the two, 1 where they are the same.
    """

    name: str
    made_by: str
    largest: float
    relative: float
    cosine: float


@dataclass(frozen=True)
class DetectionDifference:
    """How far detections are from the reference's, over all pictures.

    Attributes:
        both: Boxes that both have: same class, IoU of at least 0.5.
        only_reference: Boxes that only the reference has.
        only_other: Boxes that only the other has.
        mean_iou: Of the boxes that both have; 1 where there is none.
        largest_score: Largest difference of their scores.
    """

    both: int
    only_reference: int
    only_other: int
    mean_iou: float
    largest_score: float


@dataclass(frozen=True)
class Comparison:
    """The whole comparison.

    Attributes:
        reference, other: The two files.
        pictures: How many were fed.
        layers: Tensors that both files have, in the order of execution; empty for engines.
        output: The network's output.
        detections: After decoding and NMS.
    """

    reference: Path
    other: Path
    pictures: int
    layers: Tuple[TensorDifference, ...]
    output: TensorDifference
    detections: DetectionDifference

    def worst(self, most: int = 10) -> List[TensorDifference]:
        """Layers with the largest relative differences, worst first."""
        return sorted(self.layers, key=lambda d: -d.relative)[:most]

    def as_dict(self) -> Dict[str, Any]:
        """As a JSON object."""
        data = asdict(self)
        return {**data, "reference": str(self.reference), "other": str(self.other)}


class _Sums:
    """Running sums over pictures, from which the differences follow."""

    def __init__(self) -> None:
        self._largest = 0.0
        self._difference = self._reference = self._other = self._product = 0.0

    def add(self, reference: Float32Array, other: Float32Array) -> None:
        a, b = reference.astype(np.float64).ravel(), other.astype(np.float64).ravel()
        if a.size != b.size:
            raise ModelError("the two files give outputs of different sizes")
        apart = b - a
        self._largest = max(self._largest, float(np.abs(apart).max(initial=0.0)))
        self._difference += float(apart @ apart)
        self._reference += float(a @ a)
        self._other += float(b @ b)
        self._product += float(a @ b)

    def result(self, name: str, made_by: str) -> TensorDifference:
        scale = float(np.sqrt(self._reference * self._other))
        return TensorDifference(
            name,
            made_by,
            self._largest,
            float(np.sqrt(self._difference / max(self._reference, _TINY))),
            self._product / scale if scale > _TINY else 1.0,
        )


class Tapped:
    """An ONNX file in ONNX Runtime, all of whose layers can be seen.

    Attributes:
        model: What the file holds.
        makers: Tensor → the node that makes it, for a reader.
    """

    def __init__(self, path: Path) -> None:
        """Load ``path``. Raises ModelError."""
        model = read_onnx(path)
        self.makers: Dict[str, str] = {
            name: f"{node.name or name} ({node.op_type})"
            for node in model.graph.node
            if node.op_type not in _SILENT
            for name in node.output
        }
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        self._output = model.graph.output[0].name
        there = {info.name for info in model.graph.output}
        # Without a type: ONNX Runtime finds out by itself.
        more = [onnx.ValueInfoProto(name=name) for name in self.makers if name not in there]
        model.graph.output.extend(more)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _FATAL_ONLY
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._input = self._session.get_inputs()[0].name

    def run(self, batch: Float32Array, names: Sequence[str]) -> Mapping[str, Float32Array]:
        """The tensors of ``names`` and, as ``""``, the output."""
        wanted = [*names, self._output]
        values = self._session.run(wanted, {self._input: batch})
        return dict(zip([*names, ""], values))


def compare(reference: Path, other: Path, pictures: Iterable[UInt8Array]) -> Comparison:
    """Feed pictures to both and compare.

    Where quantising evened out the channels of a layer, they are brought back to the
    reference's range first: that is no difference.

    Args:
        reference: An ONNX file.
        other: An ONNX file or an engine.
        pictures: (H, W, 3) uint8 BGR.

    Raises:
        ConfigError: The reference is an engine, or there are no pictures.
        ModelError: A file cannot be loaded, or the two are not of one model.
        EngineError: The engine does not run here.
    """
    if _is_engine(reference):
        raise ConfigError(f"the reference is an ONNX file; {reference} is an engine: swap the two")
    finders = [_detector(path) for path in (reference, other)]
    if finders[0].size != finders[1].size:
        raise ConfigError(f"{reference} and {other} run at different input sizes")
    sides = [_side(path, finder) for path, finder in zip((reference, other), finders)]
    names = _shared(*sides)
    divided_by = _divisors(*sides)
    sums: Dict[str, _Sums] = {name: _Sums() for name in ("", *names)}
    seen: List[Tuple[Detections, Detections]] = []
    for picture in pictures:
        batch = finders[0].network_input(picture)
        first, second = (side.run(batch, names) for side in sides)
        for name, running in sums.items():
            if np.issubdtype(first[name].dtype, np.floating):
                running.add(first[name], second[name] * divided_by.get(name, _ONE))
        seen.append((finders[0].detect([picture])[0], finders[1].detect([picture])[0]))
    if not seen:
        raise ConfigError("there are no pictures to compare with")
    makers = sides[0].makers
    return Comparison(
        reference,
        other,
        len(seen),
        tuple(sums[name].result(name, makers[name]) for name in names),
        sums[""].result("output", "the network's output"),
        _detections(seen),
    )


class _EngineSide:
    """An engine: only its output can be seen."""

    def __init__(self, finder: OnnxDetector) -> None:
        self.makers: Dict[str, str] = {}
        self._network = finder.network

    def run(self, batch: Float32Array, names: Sequence[str]) -> Mapping[str, Float32Array]:
        del names
        return {"": self._network.run(batch)}


def _is_engine(path: Path) -> bool:
    return path.suffix in plan_file.SUFFIXES


def _detector(path: Path) -> OnnxDetector:
    opener: Callable[[Path], Tuple[Any, Dict[str, str]]] = (
        host.open_network if _is_engine(path) else open_network
    )
    return detectors.create(ModelSettings(path=path), opener)[0]


def _side(path: Path, finder: OnnxDetector) -> Any:
    return _EngineSide(finder) if _is_engine(path) else Tapped(path)


def _divisors(reference: Any, other: Any) -> Mapping[str, Float32Array]:
    """Tensor → what the other file's channels were divided by when it was quantised."""
    if not (isinstance(reference, Tapped) and isinstance(other, Tapped)):
        return {}
    try:
        found = equalize.divisors(reference.model, other.model)
    except ModelError:  # the reference is quantised itself: nothing was evened out in between
        return {}
    return {name: values.reshape(1, -1, 1, 1) for name, values in found.items()}


def _shared(first: Any, second: Any) -> List[str]:
    """Tensors of both, in the order of the first."""
    return [name for name in first.makers if name in second.makers]


def _detections(seen: Sequence[Tuple[Detections, Detections]]) -> DetectionDifference:
    overlaps: List[float] = []
    scores: List[float] = []
    only = [0, 0]
    for reference, other in seen:
        pairs = _pairs(reference, other)
        overlaps.extend(iou for _, _, iou in pairs)
        scores.extend(abs(float(reference.scores[i] - other.scores[j])) for i, j, _ in pairs)
        only[0] += len(reference) - len(pairs)
        only[1] += len(other) - len(pairs)
    mean = float(np.mean(overlaps)) if overlaps else 1.0
    return DetectionDifference(len(overlaps), only[0], only[1], mean, max(scores, default=0.0))


def _pairs(reference: Detections, other: Detections) -> List[Tuple[int, int, float]]:
    """Boxes of both that belong together, greedily by the reference's score."""
    free = set(range(len(other)))
    pairs = []
    for i in range(len(reference)):
        near = [(j, _iou(reference.boxes[i], other.boxes[j])) for j in free
                if reference.classes[i] == other.classes[j]]  # fmt: skip
        best = max(near, key=lambda pair: pair[1], default=(-1, 0.0))
        if best[1] >= _SAME_IOU:
            free.remove(best[0])
            pairs.append((i, *best))
    return pairs


def _iou(a: Float32Array, b: Float32Array) -> float:
    width = max(0.0, float(min(a[2], b[2]) - max(a[0], b[0])))
    height = max(0.0, float(min(a[3], b[3]) - max(a[1], b[1])))
    common = width * height
    areas = float((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]))
    return common / (areas - common) if areas > common else 0.0


def made_up_pictures(count: int, width: int = 640, height: int = 480) -> Iterable[UInt8Array]:
    """Smooth noise, always the same: exercises every layer, but shows nobody."""
    random = np.random.default_rng(0)
    for _ in range(count):
        coarse = random.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
        yield cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)  # type: ignore[misc]
