"""From settings to the parts they name, checked, before anything runs.

``edgecount check``, the start of the service and a reload all come through here, so what
passes the check also starts.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

import structlog
from pydantic import BaseModel, ValidationError

from edgecount import discovery
from edgecount.capture._select import open_source
from edgecount.capture.base import Source
from edgecount.config import CameraSettings, ModelSettings, PlaceSettings, Settings, mistakes
from edgecount.errors import ConfigError
from edgecount.infer import detector as detectors
from edgecount.infer import onnxruntime, precision, runtimes
from edgecount.infer import recipe as recipes
from edgecount.infer.base import CameraSpec
from edgecount.infer.detector import Network, OnnxDetector
from edgecount.infer.recipe import Recipe
from edgecount.infer.tensorrt import plan_file
from edgecount.records import StageTimer
from edgecount.runtime.sight import Sight, picture_size
from edgecount.track.base import Tracker

TRACKERS_PACKAGE = "edgecount.track"
DEFAULT_TRACKER = "two_stage"
DEFAULT_CAMERA = "camera"
TENSORRT = "tensorrt"  # what runs an engine that came without its ONNX file

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Model:
    """A loaded detector and what it was loaded from.

    ``path`` is the FP32 file; ``precision`` is that of the file that the detector runs, and
    ``runtime`` the library that runs it.
    """

    settings: ModelSettings
    detector: OnnxDetector
    recipe: Recipe
    path: Path
    precision: str = "fp32"
    runtime: str = onnxruntime.NAME


@dataclass(frozen=True)
class CameraPlan:
    """One camera's parts, made but not started."""

    settings: CameraSettings
    source: Source
    spec: CameraSpec

    @property
    def fps_target(self) -> float:
        """Rate that the camera should hold; a limit below it is all that can be asked."""
        return min(self.settings.fps, self.settings.max_fps or self.settings.fps)


@dataclass(frozen=True)
class Plan:
    """A configuration whose every part was found to be good.

    Attributes:
        settings: It.
        model: The model that counts.
        cameras: What each camera needs.
        warnings: What a person should know, and need not change.
        reopens: Whether the accelerator was lost in this process and is opened again.
    """

    settings: Settings
    model: Model
    cameras: Tuple[CameraPlan, ...]
    warnings: Tuple[str, ...]
    reopens: bool = False


def default_settings(
    source: str, *, model: Optional[str] = None, threads: Optional[int] = None
) -> Settings:
    """What runs without a configuration: one camera, a line across the middle, the whole frame.

    Counts are kept in memory only: a clip that is counted twice must not add up.

    Args:
        source: Source string.
        model: An ONNX file, a model folder, or the name of a shipped model.
        threads: CPU threads of the network.
    """
    whole = [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)]
    camera = {
        "name": DEFAULT_CAMERA,
        "source": source,
        "lines": [{"name": "middle", "from": (0.0, 0.5), "to": (1.0, 0.5)}],
        "zones": [{"name": "frame", "polygon": whole}],
    }
    data: Dict[str, Any] = {
        "cameras": [camera],
        "places": {"here": {"in": [f"{DEFAULT_CAMERA}.middle"]}},
        "ledger": {"enabled": False},
        "model": {**recipes.model_keys(model), "threads": threads},
    }
    return Settings.model_validate(data)


def prepare(settings: Settings, timer: StageTimer, loaded: Optional[Model] = None) -> Plan:
    """Make every part that ``settings`` name.

    Args:
        settings: The configuration.
        timer: Told how long preprocessing, inference and post-processing took.
        loaded: A model that is loaded already, taken over when the settings name the same.

    Raises:
        ConfigError: A part is not known or its options are wrong.
        ModelError: The model cannot be loaded or does not fit its recipe.
        MissingExtraError: A package that the settings ask for is not installed.
    """
    model = (
        loaded
        if loaded and loaded.settings == settings.model
        else load_model(settings.model, timer)
    )
    cameras = tuple(_camera(c, settings, model.recipe) for c in settings.cameras)
    return Plan(settings, model, cameras, tuple(_warnings(settings, model)))


def make_tracker(options: Mapping[str, Any], recipe: Recipe, where: str) -> Tracker:
    """The tracker that ``options`` name, with the recipe's thresholds unless they give others.

    Raises:
        ConfigError: There is no such tracker, or an option is wrong; ``where`` names the
            place in the configuration.
    """
    kind, checked = tracker_options(options, recipe, where)
    return tracker_of(kind, checked)


def tracker_of(kind: str, options: BaseModel) -> Tracker:
    """A new tracker with options that were checked."""
    tracker: Tracker = discovery.load(TRACKERS_PACKAGE, kind, "tracker").create(options)
    return tracker


def tracker_options(
    options: Mapping[str, Any], recipe: Recipe, where: str
) -> Tuple[str, BaseModel]:
    """The kind of tracker that ``options`` name and all its options, as :func:`make_tracker`."""
    given = dict(options)
    kind = given.pop("kind", DEFAULT_TRACKER)
    module = discovery.load(TRACKERS_PACKAGE, kind, f"{where}: tracker")
    thresholds = {"high": recipe.score_threshold, "low": recipe.low_threshold}
    known = module.Options.model_fields
    defaults = {k: v for k, v in thresholds.items() if k in known}
    return kind, _validated(module.Options, {**defaults, **given}, where)


def load_model(settings: ModelSettings, timer: StageTimer) -> Model:
    """The model that ``settings`` name, in the file and runtime that count on this machine.

    Raises:
        ConfigError: No such model.
        ModelError: The model cannot be loaded or does not fit its recipe.
        MissingExtraError: The runtime that was asked for is not installed.
    """
    if settings.path is not None and settings.path.suffix in plan_file.SUFFIXES:
        return _engine_model(settings, settings.path, timer)
    choices: List[precision.Choice] = []

    def variant(path: Path, size: Tuple[int, int]) -> Optional[Tuple[Path, Network]]:
        choice = _choice(settings, path, size)
        choices.append(choice)
        if (choice.path, choice.runtime.name) == (path, onnxruntime.NAME):
            return None
        return choice.path, choice.runtime.open(choice.path)

    detector, recipe = detectors.create(settings, onnxruntime.open_network, timer, variant)
    path, _ = recipes.find(settings.name, settings.path)
    return Model(
        settings, detector, recipe, path, choices[0].precision, runtime=choices[0].runtime.name
    )


def _engine_model(model: ModelSettings, path: Path, timer: StageTimer) -> Model:
    """An engine that came without its ONNX file: only the GPU can run it."""
    from edgecount.infer.tensorrt import host  # all of CUDA, only where it is needed

    detector, recipe, kind = host.create_detector(model, timer)
    return Model(model, detector, recipe, path, kind, runtime=TENSORRT)


def _choice(model: ModelSettings, path: Path, size: Tuple[int, int]) -> precision.Choice:
    """What counts if the CPU does; an accelerator's backend chooses for itself."""
    asked = model.precision
    if model.backend != "cpu" and asked == "int8" and precision.int8_beside(path) is None:
        asked = "fp32"
    choice = precision.choose(path, asked, size, runtimes.of(model))
    _log.info(
        "cpu_precision",
        precision=choice.precision,
        runtime=choice.runtime.name,
        reason=choice.reason,
    )
    return choice


def _camera(camera: CameraSettings, settings: Settings, recipe: Recipe) -> CameraPlan:
    threshold = settings.model.score_threshold
    asked = {} if threshold is None else {"high": threshold}
    kind, options = tracker_options(
        {**asked, **settings.tracker, **camera.tracker}, recipe, f"camera {camera.name!r}"
    )
    source = open_source(camera.name, camera.source, camera.capture, max_fps=camera.max_fps)
    spec = CameraSpec(camera.name, kind, options, camera.ignore, camera.tiles)
    return CameraPlan(camera, source, spec)


def _validated(options: Any, data: Mapping[str, Any], where: str) -> BaseModel:
    try:
        checked: BaseModel = options.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{where}: {'; '.join(mistakes(error, 'tracker'))}") from None
    return checked


def _warnings(settings: Settings, model: Model) -> List[str]:
    sight = Sight.of(model.detector, model.recipe)
    found = []
    for camera in settings.cameras:
        if not camera.lines and not camera.zones:
            found.append(f"camera {camera.name!r} has neither lines nor zones: only visible heads")
        if sight is not None and camera.head_px is not None:
            found += sight.warnings(camera, picture_size(camera))
    return found + [
        f"place {name!r} sums no line, so its occupancy stays 0"
        for name, place in settings.places.items()
        if not _lines_of(place)
    ]


def _lines_of(place: PlaceSettings) -> List[str]:
    return [*place.enters, *place.leaves]
