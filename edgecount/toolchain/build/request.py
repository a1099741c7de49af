"""From what is asked for to one well-defined build."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, List, Optional, Tuple

from edgecount.discovery import nearest
from edgecount.errors import ConfigError, EngineError, ModelError
from edgecount.infer import recipe as recipes
from edgecount.infer.recipe import Recipe
from edgecount.infer.tensorrt import profile as profiles
from edgecount.infer.tensorrt.choice import (
    DEFAULT_WORKSPACE,
    Asked,
    choose_precision,
    file_for,
    quantised_file,
)
from edgecount.infer.tensorrt.device import DeviceFacts
from edgecount.infer.tensorrt.manifest import BuildKey, Precision, file_hash, key_for
from edgecount.infer.tensorrt.profile import Profile, Shape
from edgecount.infer.tensorrt.versions import TensorRt, refusal
from edgecount.toolchain.build import onnx_file
from edgecount.toolchain.build.job import Algorithm
from edgecount.toolchain.build.onnx_file import OnnxFile
from edgecount.toolchain.quantize.calibration_set.images import CalibrationImages


@dataclass(frozen=True)
class BuildRequest:
    """What the user asks for.

    Attributes:
        model: Name of a shipped model, an ONNX file, or a model folder.
        precision: ``auto`` takes INT8 where the board has units for it and the model a
            quantised file, else FP16.
        shapes: --min, --opt and --max; None where not given.
        workspace: Most scratch memory, bytes.
        dla: Whether layers run on the DLA where they can.
        profile: Name of a device profile of the recipe; what is asked for besides goes first.
        calibration: For an implicit INT8 build (TensorRT ≤ 10) of the FP32 file: a calibration
            table, or a folder of pictures.
        calibrator: TensorRT's calibrator for pictures; a table has its own.
    """

    model: str
    precision: Asked = "auto"
    shapes: Tuple[Optional[Shape], Optional[Shape], Optional[Shape]] = (None, None, None)
    workspace: int = DEFAULT_WORKSPACE
    dla: bool = False
    profile: Optional[str] = None
    calibration: Optional[Path] = None
    calibrator: Algorithm = "entropy"


@dataclass(frozen=True)
class Plan:
    """One well-defined build.

    Attributes:
        file: The ONNX file that is built.
        recipe: Its recipe.
        precision: Of the engine.
        strongly_typed: Whether precisions are those of the file.
        profile: Shapes of the input.
        request: What was asked for.
        key: Of the engine.
        notes: What the user should know, a sentence each.
    """

    file: OnnxFile
    recipe: Recipe
    precision: Precision
    strongly_typed: bool
    profile: Profile
    request: BuildRequest
    key: BuildKey
    notes: Tuple[str, ...]


def plan(request: BuildRequest, trt: TensorRt, device: DeviceFacts) -> Plan:
    """Decide everything that can be decided without TensorRT's builder.

    Raises:
        ConfigError: The request contradicts itself, or names no model.
        ModelError: The file cannot be built.
        EngineError: This TensorRT has no kernels for this GPU.
    """
    refused = refusal(trt.version, device.capability, device.jetson)
    if refused:
        raise EngineError(refused)
    path, recipe = _find(request.model)
    if request.profile is not None:
        request = _with_profile(request, request.profile, recipe)
    calibrated = request.calibration is not None
    precision, note = choose_precision(request.precision, path, device, calibrated=calibrated)
    if request.dla:
        precision, note = _for_dla(request, trt, precision, note)
    file = onnx_file.read(_variant(path, precision, request, trt))
    recipe = recipe or _own_recipe(file, path)
    profile = profiles.choose(file.input_shape, recipe, request.shapes)
    _check(file, precision, request, profile)
    key = key_for(
        file.path,
        recipe,
        trt.version,
        device,
        precision=precision,
        profile=profile,
        workspace=request.workspace,
        dla=request.dla,
        calibration_sha256=_calibration_hash(request),
    )
    # The DLA of versions that have both ways is documented with flags only.
    flags = request.calibration is not None or (request.dla and trt.features.weakly_typed)
    strong = trt.features.strongly_typed and not flags
    return Plan(file, recipe, precision, strong, profile, request, key, _notes(file, device, note))


def _find(model: str) -> Tuple[Path, Optional[Recipe]]:
    if model in recipes.shipped():
        return recipes.find(model, None)
    path = Path(model)
    looks_like_a_path = path.exists() or path.suffix or len(path.parts) > 1
    return recipes.find(None, path) if looks_like_a_path else recipes.find(model, None)


def _with_profile(request: BuildRequest, name: str, recipe: Optional[Recipe]) -> BuildRequest:
    """The request with what a device profile says where nothing else was asked for."""
    known = recipe.profiles if recipe is not None else {}
    if name not in known:
        told = nearest(name, known) or ": its recipe has no profiles"
        raise ConfigError(f"{request.model} has no device profile {name!r}{told}")
    found = known[name]
    shape = (1, 3, found.height, found.width)
    most = (found.batch, *shape[1:])
    dla = request.dla or found.dla
    shapes = (most, most, most) if dla else (shape, shape, most)
    return replace(
        request,
        precision=found.precision if request.precision == "auto" else request.precision,
        shapes=request.shapes if any(request.shapes) else shapes,
        dla=dla,
    )


def _for_dla(
    request: BuildRequest, trt: TensorRt, precision: Precision, note: Optional[str]
) -> Tuple[Precision, Optional[str]]:
    """The precision that a DLA computes in, and why it is another than was asked for.

    Up to TensorRT 10 a DLA takes INT8 from a calibrator only (NVIDIA, TensorRT developer
    guide, "Working with DLA": no explicit quantisation).

    Raises:
        ConfigError: This TensorRT has no DLA, or its DLA does not take what is asked for.
    """
    label = trt.version.label
    if not trt.version.has_dla:
        raise ConfigError(
            f"{label} has no DLA (TensorRT up to 10.7 has, and from 11.4.1 on): build without --dla"
        )
    if precision == "fp32":
        raise ConfigError("the DLA computes in FP16 and INT8: build with --precision fp16 or int8")
    explicit = precision == "int8" and request.calibration is None
    if not explicit or not trt.features.weakly_typed:
        return precision, note
    if request.precision == "auto":
        return "fp16", f"with {label} the DLA takes no Q/DQ file: building FP16 instead"
    raise ConfigError(
        f"with {label} the DLA takes no Q/DQ file: build with --calibration TABLE.json, or "
        "--precision fp16"
    )


def _variant(path: Path, precision: Precision, request: BuildRequest, trt: TensorRt) -> Path:
    """The file that holds this precision."""
    if precision == "int8" and request.calibration is not None:
        if not trt.features.weakly_typed:
            raise ConfigError(
                f"{trt.version.label} has no calibrators any more: write the scales into the file "
                "with  edgecount quantize, and build without --calibration"
            )
        return path
    return file_for(path, precision)


def _check(file: OnnxFile, precision: Precision, request: BuildRequest, profile: Profile) -> None:
    implicit = request.calibration is not None
    if precision == "int8" and not file.quantised and not implicit:
        raise ModelError(
            f"{file.path} is not quantised, and there is no {quantised_file(file.path).name} "
            "beside it: make one with  edgecount quantize"
        )
    if file.quantised and (precision != "int8" or implicit):
        raise ModelError(
            f"{file.path} is quantised: build it with --precision int8 and without --calibration, "
            "or give the FP32 file"
        )
    if request.dla and not profile.min == profile.opt == profile.max:
        raise ConfigError(
            f"the DLA takes one shape, and {profile.text} are several: give --opt alone"
        )


def _calibration_hash(request: BuildRequest) -> str:
    """Of all that TensorRT's own calibration depends on; empty where there is none."""
    if request.calibration is None:
        return ""
    if request.calibration.is_dir():
        pictures = CalibrationImages(request.calibration).sha256
        return hashlib.sha256(f"{pictures} {request.calibrator}".encode()).hexdigest()
    return file_hash(request.calibration)


def _own_recipe(file: OnnxFile, path: Path) -> Recipe:
    """The recipe that a file carries, or what can be read from it; named after ``path``."""
    metadata = {entry.key: entry.value for entry in file.model.metadata_props}
    found = recipes.embedded(path, metadata)
    if found is not None:
        return found
    dims = file.model.graph.output[0].type.tensor_type.shape.dim
    output: List[Any] = [d.dim_value if d.dim_value > 0 else d.dim_param or "?" for d in dims]
    return recipes.infer(path, file.input_shape, output, metadata)


def _notes(file: OnnxFile, device: DeviceFacts, note: Optional[str]) -> Tuple[str, ...]:
    notes = [note] if note else []
    if device.capability is None:
        notes.append("there is no GPU here: the engine can be built, but not opened or measured")
    if file.upgraded_from is not None:
        notes.append(f"{file.path.name} is of opset {file.upgraded_from}: upgraded to 13 first")
    return tuple(notes)
