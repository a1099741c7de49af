"""Find and open what a command names: an engine file, or a model whose engine is built here."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Mapping, Optional, Tuple

from edgecount.errors import ConfigError, EngineError
from edgecount.infer import recipe as recipes
from edgecount.infer.cuda.driver import Device, Stream
from edgecount.infer.cuda.memory import DEFAULT_SHARE
from edgecount.infer.cuda.network import DeviceNetwork
from edgecount.infer.cuda.ort_network import OrtCudaNetwork
from edgecount.infer.recipe import Recipe
from edgecount.infer.tensorrt import loader, plan_file, versions
from edgecount.infer.tensorrt.cache import EngineCache, Entry, cache_folder
from edgecount.infer.tensorrt.executor import TensorRTNetwork
from edgecount.infer.tensorrt.host import expected_output, usual_size
from edgecount.infer.tensorrt.versions import TensorRt


@dataclass(frozen=True)
class EngineToRun:
    """An engine that can be opened.

    Attributes:
        path: Its file.
        size: Width and height of its input, pixels.
        open: Opens it for a stream.
    """

    path: Path
    size: Tuple[int, int]
    open: Callable[[Device, Stream], DeviceNetwork]


def engine_for(
    target: str,
    *,
    precision: Optional[str] = None,
    trt: Optional[TensorRt] = None,
    environ: Mapping[str, str] = os.environ,
) -> EngineToRun:
    """The engine that ``target`` names.

    Args:
        target: An engine file, or a model (file, folder, or a name as ``edgecount model list``
            shows it), of which the newest engine is taken.
        precision: Which of a model's engines; any where None.
        trt: What runs it; this machine's where None.
        environ: Says where the cache is.

    Raises:
        ConfigError: There is no such file.
        ModelError: It is no engine for edgecount.
        EngineError: None is built, or it cannot be loaded here.
    """
    trt = trt or versions.find()
    if is_engine(target):
        loaded, found = loader.load(Path(target), trt), None
        recipe = recipes.find(None, Path(target))[1]
        recipe = recipe or recipes.embedded(loaded.path, loaded.metadata)
    else:
        name, recipe = _named(target, environ)
        entry = _newest(name, precision, environ)
        loaded, found = loader.load(entry.engine, trt), entry.manifest.key.precision
    size = usual_size(loaded, recipe)
    expected = None if recipe is None else expected_output(recipe, size)

    def open_network(device: Device, stream: Stream) -> DeviceNetwork:
        del stream  # the engine takes any
        return TensorRTNetwork(
            device, loaded, size, expected=expected, precision=found, graphs=False
        )

    return EngineToRun(loaded.path, size, open_network)


def is_engine(target: str) -> bool:
    """Whether a command's argument names an engine file."""
    return Path(target).suffix in plan_file.SUFFIXES


def onnx_for(target: str, precision: Optional[str] = None) -> EngineToRun:
    """A model in ONNX Runtime's CUDA provider, to compare engines with.

    Raises:
        ConfigError: There is no such model, or it has no recipe that tells its size.
        ModelError: Its recipe is wrong.
    """
    path, recipe = find_model(target)
    if recipe is None:
        raise ConfigError(f"{path} has no recipe: put a {recipes.RECIPE_FILE} beside it")
    size = (recipe.input.width, recipe.input.height)

    def open_network(device: Device, stream: Stream) -> DeviceNetwork:
        return OrtCudaNetwork(
            path,
            stream=stream,
            size=size,
            precision=precision or "fp16",
            memory_bytes=int(DEFAULT_SHARE * device.properties.memory_bytes),
            device=device.properties.number,
        )

    return EngineToRun(path, size, open_network)


def find_model(target: str) -> Tuple[Path, Optional[Recipe]]:
    """File and recipe of a shipped model's name, a file or a folder. Raises ConfigError."""
    if target in recipes.shipped():
        return recipes.find(target, None)
    return recipes.find(None, Path(target))


def _named(target: str, environ: Mapping[str, str]) -> Tuple[str, Optional[Recipe]]:
    """Name and recipe of a model; of one that only the cache knows, its name alone."""
    try:
        recipe = find_model(target)[1]
    except ConfigError:
        if not EngineCache(cache_folder(environ)).slots(target):
            raise
        return target, None
    return recipe.name if recipe else Path(target).stem, recipe


def _newest(name: str, precision: Optional[str], environ: Mapping[str, str]) -> Entry:
    entries = [
        entry
        for slot in EngineCache(cache_folder(environ)).slots(name)
        for entry in [slot.entry(slot.index().current)]
        if entry is not None and precision in (None, entry.manifest.key.precision)
    ]
    if not entries:
        wanted = f"{precision} engine" if precision else "engine"
        raise EngineError(
            f"there is no {wanted} of {name} here: build one with  edgecount build, or measure its "
            "ONNX file with  --runtime onnxruntime"
        )
    return max(entries, key=lambda entry: entry.manifest.built_at)
