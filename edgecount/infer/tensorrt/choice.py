"""Which file and precision a model runs in on this device: the same for service and build."""

from pathlib import Path
from typing import Optional, Tuple

from typing_extensions import Literal

from edgecount.infer.precision import over_budget
from edgecount.infer.recipe import Recipe
from edgecount.infer.tensorrt.cache import EngineCache
from edgecount.infer.tensorrt.device import DeviceFacts
from edgecount.infer.tensorrt.manifest import BuildKey, Precision, key_for
from edgecount.infer.tensorrt.profile import Profile
from edgecount.infer.tensorrt.versions import Version, has_int8

Asked = Literal["auto", "fp32", "fp16", "int8"]
DEFAULT_WORKSPACE = 2 * 2**30
_QUANTISED = ".int8.onnx"


def quantised_file(path: Path) -> Path:
    """Where the INT8 file of a model lies: ``head-n.int8.onnx`` beside ``head-n.onnx``."""
    return path if path.name.endswith(_QUANTISED) else path.with_name(path.stem + _QUANTISED)


def plain_file(path: Path) -> Path:
    """Where the FP32 file of a model lies."""
    return path.with_name(path.name.replace(_QUANTISED, ".onnx"))


def file_for(path: Path, precision: Precision) -> Path:
    """The file that holds a precision, where it is there; else ``path``."""
    wanted = quantised_file(path) if precision == "int8" else plain_file(path)
    return wanted if wanted.is_file() else path


def choose_precision(
    asked: Asked, path: Path, device: DeviceFacts, *, calibrated: bool = False
) -> Tuple[Precision, Optional[str]]:
    """The precision that runs here, and why it is another than was asked for.

    Args:
        asked: ``auto`` is INT8 where the GPU has units for it and the model a quantised file
            that does not say of itself that it is over its budget, else FP16.
        path: The model's file.
        device: The GPU; without one, INT8 units are taken for granted.
        calibrated: Whether TensorRT will quantise the FP32 file by itself.
    """
    units = device.capability is None or has_int8(device.capability)
    if asked == "int8" and not units:
        return "fp16", f"{device.name} (SM {device.sm}) has no INT8 units: building FP16 instead"
    if asked != "auto":
        return asked, None
    quantised = quantised_file(path)
    if not units or not (quantised.is_file() or calibrated):
        return "fp16", None
    if not calibrated and over_budget(quantised):
        return "fp16", f"{quantised.name} loses more than its budget allows: building FP16 instead"
    return "int8", None


def wanted_key(
    path: Path,
    recipe: Recipe,
    version: Version,
    device: DeviceFacts,
    *,
    asked: Asked,
    profile: Profile,
    cache: Optional[EngineCache] = None,
) -> BuildKey:
    """The key of the engine that ``edgecount build`` with default options would make.

    Args:
        path: The model's file.
        recipe: Its recipe.
        version: Of TensorRT.
        device: The GPU.
        asked: With ``auto``, INT8 gives way to FP16 where that was measured to be faster.
        profile: Input shapes.
        cache: Knows what was measured.

    Raises:
        EngineError: The file cannot be read.
    """

    def key(precision: Precision) -> BuildKey:
        return key_for(
            file_for(path, precision),
            recipe,
            version,
            device,
            precision=precision,
            profile=profile,
            workspace=DEFAULT_WORKSPACE,
        )

    precision, _ = choose_precision(asked, path, device)
    first = key(precision)
    if asked != "auto" or precision != "int8" or cache is None:
        return first
    return cache.faster([first, key("fp16")]) or first
