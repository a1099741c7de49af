"""The recipe: what one must know of a model to run it, kept beside its ONNX file.

Shipped models are folders of ``engines/``. For a file of the user's own without a
recipe, layout, classes and input are read from the file itself, where it says enough.
"""

import ast
import re
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError
from typing_extensions import Annotated, Literal

from edgecount import discovery
from edgecount.config import Fraction, Name, Strict, mistakes
from edgecount.errors import ConfigError, ModelError
from edgecount.infer.heads.base import cell_count

HEADS_PACKAGE = "edgecount.infer.heads"
RECIPE_FILE = "recipe.yaml"
METADATA_KEY = "edgecount.recipe"
DEFAULT_MODEL = "head-n"
# Classes that are people or parts of people, in the order in which we would count them.
_COUNTED = ("head", "person", "face", "people", "pedestrian")
_COCO_CLASSES = 80
# Levels that detectors of these families have: P3 to P5, with P6 for large inputs, with P2 for
# small objects.
_STRIDES = ((8, 16, 32), (8, 16, 32, 64), (4, 8, 16, 32))
_MOST_END2END_ROWS = 1000
_USUAL_SIDE = 640


class InputRecipe(Strict):
    """The network's input: (batch, 3, height, width) float32, ``(value − mean) × scale``."""

    width: Annotated[int, Field(ge=32)] = Field(description="Default width, pixels.")
    height: Annotated[int, Field(ge=32)] = Field(description="Default height, pixels.")
    multiple: Annotated[int, Field(ge=1)] = Field(
        32, description="A dynamic input's sides are multiples of this."
    )
    color: Literal["bgr", "rgb"] = Field("bgr", description="Order of the planes.")
    scale: float = Field(1.0, description="Factor on 0..255 values; 1/255 for 0..1.")
    mean: Tuple[float, float, float] = Field(
        (0.0, 0.0, 0.0), description="Subtracted first, in the order of the planes, 0..255."
    )
    pad: float = Field(114.0, description="Padding value, 0..255.")


class PublishedRate(Strict):
    """A rate that somebody else measured on such a board; for orientation, not a promise."""

    fps: Annotated[float, Field(gt=0.0)] = Field(description="Pictures per second.")
    model: str = Field(description="What was run: network, input, precision, software.")
    source: str = Field(description="Where it is published.")


class DeviceProfile(Strict):
    """How the model is run on a kind of board."""

    board: str = Field(description="The boards it is meant for.")
    width: Annotated[int, Field(ge=32)] = Field(description="Input width, pixels.")
    height: Annotated[int, Field(ge=32)] = Field(description="Input height, pixels.")
    precision: Literal["auto", "fp32", "fp16", "int8"] = Field("auto", description="Of the engine.")
    batch: Annotated[int, Field(ge=1, le=64)] = Field(
        1, description="Most cameras' pictures that the engine takes at once."
    )
    dla: bool = Field(False, description="Whether layers run on the DLA where they can.")
    power: str = Field("", description="The board's fastest power mode, and how to set it.")
    published: List[PublishedRate] = Field(
        default_factory=list, description="Rates that others published for such a board."
    )


class PrecisionRecipe(BaseModel):
    """Which layers are not INT8 in the quantised file. Keys that are not known are kept."""

    model_config = ConfigDict(frozen=True, extra="allow")

    preset: Literal["int8", "int8+fp16-neck", "int8+fp32-head", "fallback-last-3"] = Field(
        "int8", description="Rules to start from."
    )
    fp16: List[str] = Field(
        default_factory=list, description="Patterns (fnmatch) of layers in FP16."
    )
    fp32: List[str] = Field(
        default_factory=list, description="Patterns (fnmatch) of layers in FP32."
    )
    calibrator: Optional[str] = Field(None, description="Calibrator of the INT8 file.")
    percentile: Optional[Annotated[float, Field(gt=0.0, le=100.0)]] = Field(
        None, description="Per cent of values kept, where the calibrator is percentile."
    )


class BudgetRecipe(BaseModel):
    """What a quantised file may lose against FP32. Keys that are not known are kept."""

    model_config = ConfigDict(frozen=True, extra="allow")

    ap50_points: Annotated[float, Field(ge=0.0)] = Field(0.5, description="Points of AP50, of 100.")
    count_error: Annotated[float, Field(ge=0.0)] = Field(
        0.0, description="Crossings by which the error of the totals may grow."
    )
    agreement: Fraction = Field(
        0.97, description="Least F1 with FP32's detections on a scene without labels."
    )


class Recipe(Strict):
    """A model's recipe. Unknown keys are errors; ``training`` is free."""

    name: Name = Field(description="Name of the model.")
    file: str = Field(description="The ONNX file, relative to the recipe.")
    head: str = Field(description="Decoder: a file name of edgecount/infer/heads.")
    classes: Annotated[List[str], Field(min_length=1)] = Field(description="All classes, in order.")
    counted: List[str] = Field(
        default_factory=list, description="Classes that are counted; guessed where empty."
    )
    anchor: Literal["center", "bottom"] = Field(
        "center",
        description="Point of a box that lines and zones see: a head's centre, a body's foot.",
    )
    input: InputRecipe = Field(description="The network's input.")
    strides: Annotated[List[Annotated[int, Field(ge=1)]], Field(min_length=1)] = Field(
        default_factory=lambda: [8, 16, 32], description="Strides of the output levels."
    )
    score_threshold: Fraction = Field(0.4, description="Least score that starts a track.")
    low_threshold: Fraction = Field(0.1, description="Least score that continues a track.")
    nms_iou: Fraction = Field(0.6, description="IoU above which two boxes are one.")
    temperature: Annotated[float, Field(gt=0.0)] = Field(
        1.0, description="Divides the score's logit, so that scores are calibrated probabilities."
    )
    smallest_head_px: Optional[float] = Field(
        None, description="Smallest head, in input pixels, that is seen reliably."
    )
    training: Dict[str, Any] = Field(default_factory=dict, description="How it was trained.")
    precision: PrecisionRecipe = Field(
        default_factory=lambda: PrecisionRecipe.model_validate({}),
        description="Quantisation rules.",
    )
    budget: BudgetRecipe = Field(
        default_factory=lambda: BudgetRecipe.model_validate({}), description="Allowed losses."
    )
    profiles: Dict[str, DeviceProfile] = Field(
        default_factory=dict, description="How it is run on each kind of board, by name."
    )

    @model_validator(mode="after")
    def _fits_together(self) -> "Recipe":
        unknown = [c for c in self.counted if c not in self.classes]
        if unknown:
            raise PydanticCustomError(
                "counted",
                "counted class '{name}' is not among the model's classes",
                {"name": unknown[0]},
            )
        if self.low_threshold > self.score_threshold:
            raise PydanticCustomError("threshold", "low_threshold is above score_threshold")
        return self

    def wanted(self) -> Tuple[int, ...]:
        """Indices of the counted classes.

        Raises:
            ModelError: None is named and none of the model's classes is a person or head.
        """
        guess = _guess_counted(self.classes)
        names = self.counted or ([guess] if guess else [])
        if not names and len(self.classes) == 1:
            names = self.classes
        if not names:
            raise ModelError(
                f"model {self.name!r} knows {len(self.classes)} classes "
                f"({', '.join(self.classes[:8])} …) and none is a head or person: "
                "name those to count as 'counted' in its recipe"
            )
        return tuple(self.classes.index(n) for n in names)


def engines_folders() -> List[Path]:
    """Where shipped models may lie: in the wheel, or beside the package in a checkout."""
    package = Path(__file__).resolve().parent.parent
    return [p for p in (package / "_data" / "engines", package.parent / "engines") if p.is_dir()]


def shipped() -> Dict[str, Path]:
    """Folders of the models that ship, by name."""
    return {
        folder.name: folder
        for root in reversed(engines_folders())
        for folder in sorted(root.iterdir())
        if (folder / RECIPE_FILE).is_file()
    }


def model_keys(model: Optional[str]) -> Dict[str, Any]:
    """``--model`` as keys of the configuration: a shipped model's name, or else a path."""
    if model is None:
        return {}
    return {"name": model} if model in shipped() else {"path": model}


def find(name: Optional[str], path: Optional[Path]) -> Tuple[Path, Optional[Recipe]]:
    """The ONNX file and recipe of a shipped model, or of a file or folder of the user's.

    Returns:
        The ONNX file, and its recipe where there is one.

    Raises:
        ConfigError: There is no such model or file.
        ModelError: The recipe is wrong.
    """
    if path is not None:
        return _find_path(path)
    known = shipped()
    wanted = name or DEFAULT_MODEL
    if wanted not in known:
        if not known:
            raise ConfigError("no model is shipped with this build: give one with --model")
        raise ConfigError(f"model {wanted!r} is not known{discovery.nearest(wanted, known)}")
    recipe = load(known[wanted] / RECIPE_FILE)
    return known[wanted] / recipe.file, recipe


def _find_path(path: Path) -> Tuple[Path, Optional[Recipe]]:
    if path.is_dir():
        recipe = load(path / RECIPE_FILE)
        return path / recipe.file, recipe
    if not path.is_file():
        known = ", ".join(shipped())
        raise ConfigError(f"model file {path} does not exist (shipped models: {known or 'none'})")
    for candidate in (path.with_suffix(".recipe.yaml"), path.parent / RECIPE_FILE):
        if candidate.is_file():
            recipe = load(candidate)
            if candidate.name != RECIPE_FILE or _is_of(path, recipe):
                return path, recipe
    return path, None


def _is_of(path: Path, recipe: Recipe) -> bool:
    """Whether a folder's recipe is this file's: variants (``head-n.int8.onnx``) share one."""
    return path.name == recipe.file or path.name.startswith(f"{Path(recipe.file).stem}.")


def load(path: Path) -> Recipe:
    """Read a recipe. Raises ModelError with file, key and mistake."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Recipe.model_validate(data)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise ModelError(f"cannot read the recipe {path}: {error}") from error
    except ValidationError as error:
        raise ModelError(f"recipe {path}: {'; '.join(mistakes(error))}") from None


def to_yaml(recipe: Recipe) -> str:
    """What :func:`embedded` reads: a recipe as a file carries it under ``METADATA_KEY``."""
    text: str = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)
    return text


def embedded(path: Path, metadata: Mapping[str, str]) -> Optional[Recipe]:
    """The recipe that edgecount's own exporter wrote into an ONNX file; None in others.

    It goes where the file goes: a detector whose recipe got lost would otherwise be taken
    for one of another family with an output of the same shape.

    Raises:
        ModelError: It is there and wrong.
    """
    text = metadata.get(METADATA_KEY)
    if text is None:
        return None
    try:
        return Recipe.model_validate(yaml.safe_load(text)).model_copy(update={"file": path.name})
    except (yaml.YAMLError, RecursionError) as error:
        raise ModelError(f"cannot read the recipe inside {path}: {error}") from error
    except ValidationError as error:
        raise ModelError(f"the recipe inside {path}: {'; '.join(mistakes(error))}") from None


def infer(
    path: Path,
    input_shape: Sequence[object],
    output_shape: Sequence[object],
    metadata: Mapping[str, str],
) -> Recipe:
    """Read from an ONNX file without recipe what it says about itself.

    Args:
        path: The file, for its name and for messages.
        input_shape: (batch, 3, height, width); a dynamic axis is not an int.
        output_shape: Shape of the first output; likewise.
        metadata: The file's metadata, where Ultralytics writes ``names`` and ``stride``.

    Raises:
        ModelError: The layout is none that edgecount knows, or may be one of several; the
            message names what was found and what would fit.
    """
    height, width = _size(input_shape, metadata)
    layout = _layout(path, width, height, output_shape, metadata)
    names = _class_names(metadata, layout.classes)
    counted = _guess_counted(names)
    ultralytics = layout.head != "yolox"
    try:
        return Recipe(
            name=_name(path),
            file=path.name,
            head=layout.head,
            classes=names,
            anchor="center" if counted in ("head", "face") else "bottom",
            input=InputRecipe(
                width=width,
                height=height,
                multiple=max(layout.strides),
                color="rgb" if ultralytics else "bgr",
                scale=1 / 255 if ultralytics else 1.0,
            ),
            strides=list(layout.strides),
        )
    except ValidationError as error:
        raise ModelError(
            f"{path} is no detector for edgecount: {'; '.join(mistakes(error))}"
        ) from None


class _Layout(NamedTuple):
    """One reading of an output's shape. ``exact``: the number of rows is the input's, too."""

    head: str
    classes: int
    strides: Tuple[int, ...]
    exact: bool


def _name(path: Path) -> str:
    """The file's stem as a name: the stem may hold anything, a name may not."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", path.stem).strip("-_")[:64] or "model"


def _size(shape: Sequence[object], metadata: Mapping[str, str]) -> Tuple[int, int]:
    """Height and width: the file's own, else what it was exported for, else 640."""
    declared = _literal(metadata.get("imgsz", ""))
    sides = list(declared) if isinstance(declared, (list, tuple)) else [declared, declared]
    height, width = ([_static(x) for x in sides] + [None, None])[:2]
    fixed_height, fixed_width = (_static(x) for x in shape[-2:])
    return fixed_height or height or _USUAL_SIDE, fixed_width or width or _USUAL_SIDE


def _static(axis: object) -> Optional[int]:
    return axis if isinstance(axis, int) and axis > 0 else None


def _layout(
    path: Path,
    width: int,
    height: int,
    shape: Sequence[object],
    metadata: Mapping[str, str],
) -> _Layout:
    """The one reading of an output shape that fits. Raises ModelError for none or several."""
    task = metadata.get("task", "detect")
    if task != "detect":
        raise ModelError(f"{path} was exported for the task {task!r}; edgecount runs detectors")
    fits = _fitting(width, height, shape, metadata)
    if len({r.head for r in fits}) == 1:
        return fits[0]
    remedy = f"put a {RECIPE_FILE} beside it that names its head"
    if fits:
        choices = " or ".join(dict.fromkeys(f"{r.head} with {r.classes} classes" for r in fits))
        raise ModelError(f"{path} has the output {list(shape)}, which may be {choices}: {remedy}")
    names = _declared_names(metadata)
    cells = cell_count(width, height, _STRIDES[0])
    declared = f" and {len(names)} classes by its metadata" if names else ""
    raise ModelError(
        f"{path} has the output {list(shape)}{declared}, which is none of the known layouts for "
        f"a {width}×{height} input (YOLOX [{cells}, 5+C], YOLOv5 [{3 * cells}, 5+C], YOLOv8 "
        f"[4+C, {cells}], end-to-end [N, 6]): {remedy}"
    )


def _fitting(
    width: int, height: int, shape: Sequence[object], metadata: Mapping[str, str]
) -> List[_Layout]:
    """The likeliest readings; several where the file does not say which."""
    names = _declared_names(metadata)
    fits = [
        r
        for r in _readings(width, height, shape, len(names))
        if not names or r.classes == len(names)
    ]
    likely = _written_by(metadata)
    largest_stride = metadata.get("stride")
    for preferred in (
        lambda r: r.exact,
        lambda r: r.head in likely,
        lambda r: str(max(r.strides)) == largest_stride,
    ):
        fits = [r for r in fits if preferred(r)] or fits
    return fits


def _readings(width: int, height: int, shape: Sequence[object], declared: int) -> Iterator[_Layout]:
    """Every layout that an output shape may be."""
    if len(shape) != 3:
        return
    rows, columns = _static(shape[1]), _static(shape[2])
    for strides in _STRIDES:
        cells = cell_count(width, height, strides)
        for head, per_cell in (("yolox", 1), ("yolov5", 3)):
            if columns and columns > 5 and rows in (per_cell * cells, None):
                yield _Layout(head, columns - 5, strides, rows is not None)
        if rows and rows > 4 and columns in (cells, None):
            yield _Layout("yolov8", rows - 4, strides, columns is not None)
    if columns == 6 and (rows is None or rows <= _MOST_END2END_ROWS):
        yield _Layout("end2end", declared or _COCO_CLASSES, _STRIDES[0], exact=False)


def _written_by(metadata: Mapping[str, str]) -> Tuple[str, ...]:
    """The heads that the exporter which wrote this metadata may have written."""
    if "task" in metadata:  # Ultralytics since YOLOv8
        return ("yolov8", "end2end")
    if "names" in metadata:  # Ultralytics' YOLOv5
        return ("yolov5",)
    return ("yolox", "yolov5", "yolov8", "end2end")


def _declared_names(metadata: Mapping[str, str]) -> List[str]:
    """Class names as Ultralytics writes them: the repr of a list, or of a dict by index."""
    declared = _literal(metadata.get("names", ""))
    try:
        if isinstance(declared, dict):
            return [str(declared[k]) for k in sorted(declared, key=int)]
    except (TypeError, ValueError):
        return []
    return [str(n) for n in declared] if isinstance(declared, list) else []


def _literal(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (TypeError, ValueError, SyntaxError, MemoryError, RecursionError):
        return None


def _class_names(metadata: Mapping[str, str], count: int) -> List[str]:
    names = _declared_names(metadata)
    if names:
        return names
    if count == 1:
        return ["head"]
    first = ["person"] if count == _COCO_CLASSES else ["class0"]
    return first + [f"class{i}" for i in range(1, count)]


def _guess_counted(names: Sequence[str]) -> Optional[str]:
    return next((c for c in _COUNTED if c in names), None)
