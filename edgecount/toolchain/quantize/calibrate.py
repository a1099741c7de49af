"""From pictures to a calibration table."""

from dataclasses import replace
from typing import Any, Callable, Dict, Iterable, Mapping, Optional, Sequence, Tuple

from pydantic import ValidationError

from edgecount import discovery
from edgecount.config import mistakes
from edgecount.errors import ConfigError
from edgecount.infer.recipe import Recipe
from edgecount.records import UInt8Array
from edgecount.toolchain.quantize.activations import Gathered, GatherSettings, Progress, gather
from edgecount.toolchain.quantize.calibrators.base import Calibrator
from edgecount.toolchain.quantize.histogram import Histogram
from edgecount.toolchain.quantize.table import CalibrationTable
from edgecount.toolchain.quantize.watched import Model

PACKAGE = "edgecount.toolchain.quantize.calibrators"
DEFAULT_METHOD = "entropy"
# Any scale represents zeros exactly; the table wants one.
_DEAD_AMAX = 1.0

Options = Mapping[str, Any]
Notice = Callable[[str], None]


def calibrate(
    model: Model,
    images: Iterable[UInt8Array],
    recipe: Recipe,
    method: str = DEFAULT_METHOD,
    tensors: Optional[Sequence[str]] = None,
    *,
    options: Optional[Options] = None,
    settings: Optional[GatherSettings] = None,
    images_sha256: str = "",
    notice: Optional[Notice] = None,
    progress: Optional[Progress] = None,
) -> Tuple[CalibrationTable, Dict[str, Histogram]]:
    """Choose the clipping points of a model's activations: :func:`gather`, then :func:`choose`.

    Args:
        model: FP32 ONNX file, or the model itself.
        images: (H, W, 3) uint8 BGR each, of any size; read once, one after the other.
        recipe: The model's recipe.
        method: Name of a calibrator.
        tensors: Activations to calibrate; those that quantisable operators read where None.
        options: Options of the calibrator.
        settings: How pictures are run.
        images_sha256: Hash of the images, for the table.
        notice: Told what is suspicious: dead activations.
        progress: Called with the number of pictures done, from any thread.

    Returns:
        The table, and the distribution of each tensor with the clipping point chosen.

    Raises:
        ConfigError: No such calibrator, or its options are wrong.
        ModelError, EngineError, DatasetError: As :func:`~.activations.gather`.
    """
    create(method, options)  # a mistake here is told before the pictures are run
    gathered = gather(model, images, recipe, tensors, settings, progress)
    return choose(gathered, method, options, images_sha256=images_sha256, notice=notice)


def choose(
    gathered: Gathered,
    method: str = DEFAULT_METHOD,
    options: Optional[Options] = None,
    *,
    images_sha256: str = "",
    notice: Optional[Notice] = None,
) -> Tuple[CalibrationTable, Dict[str, Histogram]]:
    """Choose clipping points from what was gathered; any number of methods can be tried on it.

    Returns and raises as :func:`calibrate`.
    """
    calibrator = create(method, options)
    chosen = {
        name: replace(seen, amax=_clip(calibrator, seen))
        for name, seen in gathered.histograms.items()
    }
    for name, seen in chosen.items():
        if not seen.peak and notice is not None:
            notice(_dead(name, gathered.makers.get(name, "the input")))
    table = CalibrationTable(
        model_sha256=gathered.model_sha256,
        method=method,
        images=gathered.images,
        images_sha256=images_sha256,
        input=gathered.input,
        amax={name: seen.amax for name, seen in chosen.items()},
    )
    return table, chosen


def method_of(
    recipe: Recipe, method: Optional[str] = None, percentile: Optional[float] = None
) -> Tuple[str, Dict[str, Any]]:
    """Calibrator and options: what was asked for, else what the recipe says, else the default.

    The recipe's percentile goes with the recipe's calibrator: it is no option of another one.
    """
    wanted = recipe.precision
    chosen = method or wanted.calibrator or DEFAULT_METHOD
    if percentile is None and chosen == wanted.calibrator:
        percentile = wanted.percentile
    return chosen, {} if percentile is None else {"percentile": percentile}


def create(method: str, options: Optional[Options] = None) -> Calibrator:
    """The calibrator called ``method``.

    Raises:
        ConfigError: No such calibrator, or its options are wrong.
    """
    module = discovery.load(PACKAGE, method, "calibrator")
    try:
        checked = module.Options.model_validate(dict(options or {}))
    except ValidationError as error:
        raise ConfigError(f"calibrator {method!r}: {'; '.join(mistakes(error))}") from None
    made: Calibrator = module.create(checked)
    return made


def _clip(calibrator: Calibrator, seen: Histogram) -> float:
    return calibrator.clip(seen) if seen.peak else _DEAD_AMAX


def _dead(name: str, maker: str) -> str:
    return (
        f"activation {name!r} of {maker} is dead: 0 for every value of every picture. Its scale "
        f"cannot be measured ({_DEAD_AMAX:g} is taken as its clipping point). Either the pictures "
        "lack what makes it answer, or its layer can be pruned"
    )
