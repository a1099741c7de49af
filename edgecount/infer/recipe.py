"""The recipe: what one must know of a model to run it, kept beside its ONNX file.

Shipped models are folders of ``engines/``. For a file of the user's own without a
recipe, layout, classes and input are read from the file itself, where it says enough.
"""

from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import yaml
from pydantic import Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError
from typing_extensions import Annotated, Literal

from edgecount import discovery
from edgecount.config import Fraction, Name, Strict
from edgecount.errors import ConfigError, ModelError

HEADS_PACKAGE = "edgecount.infer.heads"
RECIPE_FILE = "recipe.yaml"
DEFAULT_MODEL = "head-n"
# Classes that are people or parts of people, in the order in which we would count them.
_COUNTED = ("head", "person", "face", "people", "pedestrian")
_COCO_CLASSES = 80


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


class Recipe(Strict):
    """A model's recipe. Unknown keys are errors; ``training`` … ``profiles`` are free."""

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
    strides: Annotated[List[int], Field(min_length=1)] = Field(
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
    precision: Dict[str, Any] = Field(default_factory=dict, description="Quantisation rules.")
    budget: Dict[str, Any] = Field(default_factory=dict, description="Allowed losses.")
    profiles: Dict[str, Any] = Field(default_factory=dict, description="Per-device settings.")

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
        names = self.counted or [c for c in _COUNTED if c in self.classes][:1]
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
            # A folder may hold several files of one model (plain, INT8); all share its recipe.
            if candidate.name != RECIPE_FILE or path.stem.split(".")[0] == Path(recipe.file).stem:
                return path, recipe
    return path, None


def load(path: Path) -> Recipe:
    """Read a recipe. Raises ModelError with file, key and mistake."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Recipe.model_validate(data)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ModelError(f"cannot read the recipe {path}: {error}") from error
    except ValidationError as error:
        mistakes = "; ".join(
            f"{'.'.join(map(str, m['loc']))}: {m['msg']}" for m in error.errors(include_url=False)
        )
        raise ModelError(f"recipe {path}: {mistakes}") from None


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
        ModelError: The layout is none that edgecount knows; the message names both.
    """
    height, width = _size(input_shape, metadata)
    head, classes = _layout(path, width, height, output_shape, metadata)
    ultralytics = head != "yolox"
    # Sanitised: the stem may hold anything, a name may not.
    stem = "".join(c if c.isalnum() or c in "-_" else "-" for c in path.stem).strip("-_")
    names = _class_names(metadata, classes)
    return Recipe(
        name=stem or "model",
        file=path.name,
        head=head,
        classes=names,
        anchor="bottom" if _bodies(names) else "center",
        input=InputRecipe(
            width=width,
            height=height,
            color="rgb" if ultralytics else "bgr",
            scale=1 / 255 if ultralytics else 1.0,
        ),
    )


def _size(shape: Sequence[object], metadata: Mapping[str, str]) -> Tuple[int, int]:
    height, width = (x if isinstance(x, int) and x > 0 else None for x in shape[-2:])
    if height and width:
        return height, width
    try:
        declared = yaml.safe_load(metadata.get("imgsz", ""))
        return int(declared[0]), int(declared[1])
    except (TypeError, ValueError, IndexError, yaml.YAMLError):
        return 640, 640


def _layout(
    path: Path,
    width: int,
    height: int,
    shape: Sequence[object],
    metadata: Mapping[str, str],
) -> Tuple[str, int]:
    """Head and number of classes that fit an output shape."""
    cells = sum(-(-width // s) * -(-height // s) for s in (8, 16, 32))
    rows, columns = (x if isinstance(x, int) and x > 0 else None for x in shape[-2:])
    if len(shape) == 3:
        if columns == 6 and (rows is None or rows <= 1000):
            return "end2end", len(_declared_names(metadata)) or _COCO_CLASSES
        if rows and rows > 4 and columns in (cells, None) and rows < cells:
            return "yolov8", rows - 4
        if columns and columns > 5 and rows == cells:
            return "yolox", columns - 5
        if columns and columns > 5 and rows in (3 * cells, None):
            return "yolov5", columns - 5
    raise ModelError(
        f"{path} has the output {list(shape)}, which is none of the known layouts for a "
        f"{width}×{height} input (YOLOX [{cells}, 5+C], YOLOv5 [{3 * cells}, 5+C], YOLOv8 "
        f"[4+C, {cells}], end-to-end [N, 6]): put a recipe.yaml beside it that names its head"
    )


def _declared_names(metadata: Mapping[str, str]) -> List[str]:
    try:
        declared = yaml.safe_load(metadata.get("names", ""))
    except yaml.YAMLError:
        return []
    if isinstance(declared, dict):
        return [str(declared[k]) for k in sorted(declared)]
    return [str(n) for n in declared] if isinstance(declared, list) else []


def _class_names(metadata: Mapping[str, str], count: int) -> List[str]:
    names = _declared_names(metadata)
    if len(names) == count:
        return names
    if count == 1:
        return ["head"]
    first = ["person"] if count == _COCO_CLASSES else ["class0"]
    return first + [f"class{i}" for i in range(1, count)]


def _bodies(names: Sequence[str]) -> bool:
    return not any(n in names for n in ("head", "face")) and len(names) > 0
