"""The calibration table: the clipping point of each activation, and where it comes from."""

import json
import math
import struct
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Dict, Mapping, Tuple

from edgecount.errors import DatasetError

LEVELS = 127
"""Quantised steps on each side of zero. −128 stays unused: symmetric, as TensorRT has it."""

_FORMAT = 1
_SIZE_KEYS = ("width", "height", "multiple")
_ALGORITHMS = {"entropy": "EntropyCalibration2", "minmax": "MinMaxCalibration"}
_DEFAULT_ALGORITHM = "EntropyCalibration2"


@dataclass(frozen=True)
class CalibrationTable:
    """Clipping points of a model's activations: symmetric, one for each tensor.

    Attributes:
        model_sha256: Of the FP32 ONNX file that was calibrated; empty where unknown.
        method: Name of the calibrator.
        images: How many images were used.
        images_sha256: Of the images' own hashes, in order; empty where unknown.
        input: The recipe's input section: how the images were prepared.
        amax: Tensor name → greatest magnitude that is represented.
    """

    model_sha256: str
    method: str
    images: int
    images_sha256: str
    input: Mapping[str, Any]
    amax: Dict[str, float] = field(default_factory=dict)

    def scale(self, tensor: str) -> float:
        """What one quantised step is worth: amax ÷ 127.

        Raises:
            DatasetError: The table has no such tensor.
        """
        try:
            return self.amax[tensor] / LEVELS
        except KeyError:
            raise DatasetError(
                f"the calibration table has no tensor {tensor!r}: it was made for another model "
                "or other tensors; run  edgecount calibrate  on this model"
            ) from None

    def differences(self, wanted: Mapping[str, Any]) -> Dict[str, Tuple[object, object]]:
        """Where a recipe's input section differs: key → (the table's value, the recipe's).

        Another size is no difference: activations hardly depend on it.
        """
        have = dict(self.input)
        keys = sorted({*have, *wanted} - set(_SIZE_KEYS))
        pairs = {key: (have.get(key), _plain(wanted.get(key))) for key in keys}
        return {key: pair for key, pair in pairs.items() if _plain(pair[0]) != pair[1]}

    def check_input(self, wanted: Mapping[str, Any]) -> None:
        """Check that calibration saw what the pipeline will feed.

        Raises:
            DatasetError: It was prepared otherwise; the message names each difference.
        """
        found = self.differences(wanted)
        if found:
            listed = "; ".join(f"{k}: {a!r}, now {b!r}" for k, (a, b) in found.items())
            raise DatasetError(
                f"the table was calibrated on images prepared otherwise ({listed}): its scales do "
                "not fit what the pipeline feeds; run  edgecount calibrate  with this recipe"
            )

    def check_model(self, digest: str, name: str) -> None:
        """Check that the table is of the model called ``name`` with this SHA-256.

        Raises:
            DatasetError: It is another model's; that of a file with evened channels is its own.
        """
        if self.model_sha256 not in ("", digest):
            raise DatasetError(
                f"the table was made for another file than {name} (or for it with its channels "
                "evened out, as edgecount quantize does): make one with  edgecount calibrate"
            )

    def save(self, path: Path) -> None:
        """Write the table as JSON, in one piece.

        Raises:
            DatasetError: The file cannot be written.
        """
        part = path.with_name(path.name + ".part")
        text = json.dumps({"format": _FORMAT, **asdict(self)}, indent=1)
        try:
            part.write_text(text + "\n", encoding="utf-8")
            part.replace(path)
        except OSError as error:
            raise DatasetError(f"cannot write the calibration table {path}: {error}") from error

    @staticmethod
    def load(path: Path) -> "CalibrationTable":
        """Read a table.

        Raises:
            DatasetError: The file cannot be read, or is no calibration table.
        """
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            return _from_json(data)
        except OSError as error:
            raise DatasetError(f"cannot read the calibration table {path}: {error}") from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DatasetError(
                f"{path} is no calibration table of edgecount ({error}): make one with  "
                "edgecount calibrate"
            ) from error

    def to_tensorrt_cache(self, version: int = 8205) -> str:
        """The table as TensorRT's own calibration cache.

        The form is that of TensorRT's writer: a line ``TRT-<version>-<algorithm>``, then
        ``tensor: hex``, where hex is the scale as big-endian float32.

        Args:
            version: The TensorRT that will read it, as its header writes it (8.2.5 is 8205).
        """
        algorithm = _ALGORITHMS.get(self.method, _DEFAULT_ALGORITHM)
        lines = [f"TRT-{version}-{algorithm}"]
        lines += [f"{name}: {_hex(self.scale(name))}" for name in self.amax]
        return "\n".join(lines) + "\n"

    @staticmethod
    def from_tensorrt_cache(text: str) -> "CalibrationTable":
        """Read a cache that TensorRT (or :meth:`to_tensorrt_cache`) wrote.

        A cache says neither which model nor which images it is of: these stay empty.

        Raises:
            DatasetError: It is no cache; the message names the line.
        """
        lines = text.strip().splitlines()
        header = lines[0].split("-", 2) if lines else []
        if len(header) != 3 or header[0] != "TRT":
            raise DatasetError(
                "no TensorRT calibration cache: the first line is not TRT-<version>-<algorithm>"
            )
        names = {algorithm: method for method, algorithm in _ALGORITHMS.items()}
        method = names.get(header[2].strip(), header[2].strip())
        amax = dict(_cache_line(n, line) for n, line in enumerate(lines[1:], 2) if line.strip())
        return CalibrationTable("", method, 0, "", {}, amax)


def _from_json(data: Any) -> CalibrationTable:
    if not isinstance(data, dict) or data.pop("format", None) != _FORMAT:
        raise ValueError(f"it is not of format {_FORMAT}")
    amax = {str(name): float(value) for name, value in data["amax"].items()}
    wrong = [name for name, value in amax.items() if not (math.isfinite(value) and value > 0)]
    if wrong:
        raise ValueError(f"the clipping point of {wrong[0]!r} is not above zero")
    return CalibrationTable(**{**data, "amax": amax})


def _cache_line(number: int, line: str) -> Tuple[str, float]:
    name, colon, digits = line.rpartition(": ")
    try:
        if not colon:
            raise ValueError(line)
        (scale,) = struct.unpack(">f", bytes.fromhex(digits.strip().zfill(8)))
    except (ValueError, struct.error):
        raise DatasetError(
            f"line {number} of the TensorRT calibration cache is not  tensor: hex  ({line!r})"
        ) from None
    return name, scale * LEVELS


def _hex(scale: float) -> str:
    return struct.pack(">f", scale).hex()


def _plain(value: object) -> object:
    """As JSON would give it back: tuples become lists."""
    return json.loads(json.dumps(value))
