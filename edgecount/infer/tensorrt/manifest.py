"""What an engine was built from, and on what: the key of the cache, and the file beside it."""

import hashlib
import json
from pathlib import Path
from typing import Dict, List, Optional, Tuple

from pydantic import Field, ValidationError
from typing_extensions import Literal

from edgecount.config import Strict, mistakes
from edgecount.errors import EngineError
from edgecount.infer.recipe import Recipe
from edgecount.infer.tensorrt.device import DeviceFacts
from edgecount.infer.tensorrt.profile import Profile
from edgecount.infer.tensorrt.versions import Version

Precision = Literal["fp32", "fp16", "int8"]
_MIB = 2**20


class BuildKey(Strict):
    """Everything that an engine depends on. Two engines with equal keys are the same.

    Attributes:
        model: Name of the model.
        model_sha256: Of the ONNX file that is built.
        recipe_sha256: Of the recipe's precision rules; see :func:`recipe_hash`.
        calibration_sha256: Of what TensorRT's own calibration of an implicit build was fed with,
            else empty.
        runtime: ``tensorrt`` or ``tensorrt_rtx``.
        runtime_version: Its version.
        cuda: CUDA version of the driver.
        driver: Version of the driver, or of L4T.
        device: Name of the GPU.
        sm: Its compute capability, ``none`` for an engine built without a GPU.
        precision: Precision that was asked for.
        profile: Input shapes.
        workspace: Most scratch memory, bytes.
        dla: Whether layers run on the board's DLA where they can.
    """

    model: str
    model_sha256: str
    recipe_sha256: str
    calibration_sha256: str
    runtime: str
    runtime_version: str
    cuda: str
    driver: str
    device: str
    sm: str
    precision: Precision
    profile: Profile
    workspace: int
    dla: bool

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that name the engine's file."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def version(self) -> Version:
        """Product and version of TensorRT."""
        return Version.parse(self.runtime, self.runtime_version)


class Layer(Strict):
    """A layer of a built engine.

    Attributes:
        name: As TensorRT calls it; fused layers carry the names of their parts.
        kind: Kind of layer, e.g. ``CaskConvolution`` or ``Reformat``.
        precision: ``int8``, ``fp16``, ``fp32``, or another type's name; empty where unknown.
        inputs, outputs: Names of tensors.
        parts: The ONNX nodes that it computes, where TensorRT tells.
    """

    name: str
    kind: str
    precision: str = ""
    inputs: Tuple[str, ...] = ()
    outputs: Tuple[str, ...] = ()
    parts: Tuple[str, ...] = ()


class Manifest(Strict):
    """The JSON file beside an engine.

    Attributes:
        format: Of this file.
        key: What the engine was built from and on.
        engine_sha256: Of the engine's file.
        engine_bytes: Its size.
        built_at: UTC, ISO 8601.
        build_seconds: How long the build took.
        workspace_used: Scratch memory that was allowed in the end, bytes: less than the key's
            where the first try ran out of memory.
        layers_of: Whether ``layers`` are the engine's own, or (built without a GPU, where an
            engine cannot be opened) those of the network before fusion.
        layers: Layers and their precisions.
        edgecount: Version of edgecount.
    """

    format: Literal[1] = 1
    key: BuildKey
    engine_sha256: str
    engine_bytes: int
    built_at: str
    build_seconds: float
    workspace_used: int
    layers_of: Literal["engine", "network"]
    layers: List[Layer] = Field(default_factory=list)
    edgecount: str

    def precisions(self) -> Dict[str, int]:
        """How many layers there are of each precision."""
        counts: Dict[str, int] = {}
        for layer in self.layers:
            counts[layer.precision or "?"] = counts.get(layer.precision or "?", 0) + 1
        return dict(sorted(counts.items()))


def key_for(
    model: Path,
    recipe: Recipe,
    version: Version,
    device: DeviceFacts,
    *,
    precision: Precision,
    profile: Profile,
    workspace: int,
    dla: bool = False,
    calibration_sha256: str = "",
) -> BuildKey:
    """The key of an engine that is wanted on this machine.

    Raises:
        EngineError: A file cannot be read.
    """
    return BuildKey(
        model=recipe.name,
        model_sha256=file_hash(model),
        recipe_sha256=recipe_hash(recipe),
        calibration_sha256=calibration_sha256,
        runtime=version.product,
        runtime_version=version.text,
        cuda=device.cuda,
        driver=device.driver,
        device=device.name,
        sm=device.sm,
        precision=precision,
        profile=profile,
        workspace=workspace,
        dla=dla,
    )


def loadable(built: BuildKey, now: BuildKey) -> bool:
    """Whether this machine's TensorRT can open an engine at all, whatever it computes."""
    same = ("runtime", "runtime_version", "device", "sm")
    return all(getattr(built, name) == getattr(now, name) for name in same)


def difference(built: BuildKey, now: BuildKey) -> Optional[str]:
    """What differs, as the first half of a sentence; None where nothing does."""
    if built == now:
        return None
    told = [_bound_to(built, now), _driver(built, now), _made_of(built, now), _asked(built, now)]
    return "; ".join(part for part in told if part)


def _bound_to(built: BuildKey, now: BuildKey) -> str:
    was, is_ = [], []
    if built.version != now.version:
        was.append(f"with {_exact(built, now)}")
        is_.append(_exact(now, built))
    if (built.device, built.sm) != (now.device, now.sm):
        is_.append(f"on {_gpu(now)}" if is_ else _gpu(now))
        was.append(f"for {_gpu(built)}")
    return f"built {' '.join(was)}, this is {' '.join(is_)}" if was else ""


def _exact(key: BuildKey, other: BuildKey) -> str:
    """The version's label; with all its numbers where the label does not tell the two apart."""
    label = key.version.label
    return label if label != other.version.label else f"{label.split()[0]} {key.runtime_version}"


def _gpu(key: BuildKey) -> str:
    return "no GPU" if key.sm == "none" else f"{key.device} (SM {key.sm})"


def _driver(built: BuildKey, now: BuildKey) -> str:
    if built.driver != now.driver:
        return f"built with driver {built.driver}, this is {now.driver}"
    if built.cuda != now.cuda:
        return f"built with CUDA {built.cuda}, this is {now.cuda}"
    return ""


def _made_of(built: BuildKey, now: BuildKey) -> str:
    names = {
        "model": "model",
        "model_sha256": "ONNX file",
        "recipe_sha256": "recipe's precision",
        "calibration_sha256": "calibration",
    }
    changed = [shown for name, shown in names.items() if getattr(built, name) != getattr(now, name)]
    if not changed:
        return ""
    verb = "has" if len(changed) == 1 else "have"
    return f"the {' and the '.join(changed)} {verb} changed since"


def _asked(built: BuildKey, now: BuildKey) -> str:
    pairs = [
        ("precision", built.precision, now.precision),
        ("input", built.profile.text, now.profile.text),
        ("workspace", f"{built.workspace // _MIB} MiB", f"{now.workspace // _MIB} MiB"),
        ("DLA", "on" if built.dla else "off", "on" if now.dla else "off"),
    ]
    told = [f"{name} {was} → {is_}" for name, was, is_ in pairs if was != is_]
    return f"other settings are wanted ({', '.join(told)})" if told else ""


def recipe_hash(recipe: Recipe) -> str:
    """SHA-256 of what an engine takes from a recipe: its precision rules.

    Thresholds, names and budgets are not in it; the input's size is the profile, and how
    pictures are prepared is in the scales of the quantised file.
    """
    # Without defaults, so that a rule that edgecount learns later rebuilds nothing.
    rules = recipe.model_dump(mode="json", exclude_defaults=True).get("precision", {})
    return hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file. Raises EngineError where it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            for block in iter(lambda: file.read(_MIB), b""):
                digest.update(block)
    except OSError as error:
        raise EngineError(f"cannot read {path}: {error.strerror or error}") from error
    return digest.hexdigest()


def read(path: Path) -> Manifest:
    """Read a manifest.

    Raises:
        EngineError: It cannot be read, or is none of this version's.
    """
    try:
        return Manifest.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise EngineError(f"cannot read the manifest {path}: {error}") from error
    except ValidationError as error:
        raise EngineError(f"the manifest {path}: {mistakes(error)[0]}") from None
