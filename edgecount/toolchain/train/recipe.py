"""The training recipe: everything that a run depends on, in one YAML file."""

from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgecount import discovery
from edgecount.config import Name
from edgecount.errors import ConfigError

RECIPES = Path(__file__).with_name("recipes")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class ModelSpec(_Section):
    """The network."""

    backbone: str = Field("csp", description="Name of a file in train/backbones.")
    backbone_options: Dict[str, Any] = Field(
        default_factory=dict, description="Options of that backbone."
    )
    act: str = Field("relu", description="Activation of neck and head: relu, silu, hardswish.")
    neck_width: Tuple[int, int, int] = Field(
        (64, 128, 256), description="Channels of the pyramid at strides 8, 16, 32."
    )
    neck_depth: int = Field(1, ge=0, description="Bottlenecks in each merge.")
    neck_depthwise: bool = Field(True, description="Depthwise 3×3 convolutions in the neck.")
    head_width: int = Field(48, ge=8, description="Channels of the head's towers.")
    head_depth: int = Field(1, ge=1, description="3×3 convolutions in each tower.")
    head_depthwise: bool = Field(True, description="Depthwise 3×3 convolutions in the head.")


class InitSpec(_Section):
    """Where the weights come from, and a teacher that keeps them general."""

    yolox: Optional[Path] = Field(
        None, description="A YOLOX-nano ONNX file whose backbone and neck start this one's."
    )
    distill: float = Field(
        0.0, ge=0, description="Weight of staying near that network's features (0: no teacher)."
    )
    lr_scale: float = Field(
        1.0, gt=0, le=1, description="Learning rate of initialised layers, relative to new ones."
    )
    master: Optional[Path] = Field(
        None, description="A finished, larger detector's ONNX file, whose output is learned, too."
    )
    likeness: float = Field(1.0, ge=0, description="Weight of giving its scores and boxes.")


class AugmentSpec(_Section):
    """How pictures are changed; all draws are uniform unless said otherwise."""

    layout: Tuple[float, float, float] = Field(
        (0.4, 0.35, 0.25), description="Chances of a 1×1, 2×2 and 3×3 mosaic."
    )
    scale_1: Tuple[float, float] = Field(
        (0.6, 1.8), description="Zoom of a single picture (log-uniform)."
    )
    scale_2: Tuple[float, float] = Field((0.4, 1.3), description="Zoom inside a 2×2 mosaic.")
    scale_3: Tuple[float, float] = Field((0.25, 0.8), description="Zoom inside a 3×3 mosaic.")
    stretch: Tuple[float, float] = Field(
        (0.85, 1.6), description="Width to height, beside the picture's own (log-uniform)."
    )
    tilt: float = Field(0.25, description="Chance that a picture is turned beyond ±12 degrees.")
    pastes: int = Field(
        6, ge=0, description="Patches per picture: heads from elsewhere, and look-alikes."
    )
    paste: float = Field(0.45, ge=0, le=1, description="Chance of each patch.")
    bodies: float = Field(
        0.6, ge=0, le=1, description="Part of the pasted small heads that bring their shoulders."
    )
    plain: float = Field(
        0.08, ge=0, le=1, description="Chance of bare ground instead of a picture, under patches."
    )
    colour: float = Field(0.6, ge=0, le=1, description="Chance of a strong colour change.")
    degrade: float = Field(
        0.35, ge=0, le=1, description="Chance of each of blur, noise, low light, JPEG blocks."
    )
    calm: float = Field(0.2, ge=0, le=1, description="Last part of the run with milder changes.")


class LabelSpec(_Section):
    """What to do about heads that nobody labelled."""

    ignore_people: bool = Field(
        False, description="Ignore the head region of people (found by init.yolox) with no label."
    )
    relabel_at: List[float] = Field(
        default_factory=list, description="Parts of the run after which the set is labelled anew."
    )
    forgive_above: float = Field(
        0.6,
        ge=0,
        description="Score of init.master from which an unlabelled place is no mistake.",
    )
    add_above: float = Field(0.5, description="Agreed score from which an unlabelled head counts.")
    ignore_above: float = Field(0.3, description="Agreed score from which a region is ignored.")
    look_alikes: float = Field(
        0.4, ge=0, le=1, description="Share of known look-alikes among pasted backgrounds."
    )


class ScheduleSpec(_Section):
    """How long and how fast."""

    epochs: int = Field(100, ge=1)
    batch: int = Field(128, ge=1, description="Pictures per step at the first size.")
    sizes: List[int] = Field(
        default_factory=lambda: [416],
        min_length=1,
        description="Training sizes, used in turn (multiples of 32); batch falls with the area.",
    )
    compile: bool = Field(
        False, description="Fuse kernels with torch.compile first (GPU only; a minute or two)."
    )
    half: bool = Field(True, description="On a GPU, run the network in bfloat16.")
    lr: float = Field(2e-3, gt=0)
    weight_decay: float = Field(0.03, ge=0)
    warmup: float = Field(0.03, ge=0, le=1, description="First part of the run with a rising rate.")
    ema: float = Field(0.9985, gt=0, lt=1, description="Decay of the averaged weights.")
    box_weight: float = Field(3.0, gt=0)
    max_boxes: int = Field(80, ge=1, description="Boxes per picture after mosaic.")
    seed: int = 1


class QatSpec(_Section):
    """Quantisation-aware fine-tuning of a trained network; the rest is as in its training."""

    epochs: int = Field(24, ge=1)
    batch: int = Field(32, ge=1, description="Pictures per step at the first size.")
    lr: float = Field(2e-4, gt=0)
    scale_rate: float = Field(
        30.0, gt=0, description="Learning rate of clipping points (in octaves), relative to lr."
    )
    ema: float = Field(0.99, gt=0, lt=1, description="Decay of the averaged weights.")
    learn_scales: bool = Field(
        True, description="Whether clipping points of activations are learnt, too, or stay."
    )
    labels: float = Field(
        0.25, ge=0, description="Weight of the labels. What nobody labelled is taken for wrong."
    )
    teacher: float = Field(
        1.0, ge=0, description="Weight of giving the FP32 network's scores and boxes."
    )


class TrainRecipe(_Section):
    """A training run."""

    name: Name = Field(description="Name of the model.")
    classes: List[str] = Field(default_factory=lambda: ["head"], min_length=1)
    cache: int = Field(416, description="Longest side at which pictures are kept in memory.")
    size: int = Field(416, description="Input size for validation and export.")
    model: ModelSpec = ModelSpec()
    init: InitSpec = InitSpec()
    augment: AugmentSpec = AugmentSpec()
    labels: LabelSpec = LabelSpec()
    schedule: ScheduleSpec = ScheduleSpec()
    qat: QatSpec = QatSpec()

    def override(
        self,
        init: Optional[Path] = None,
        master: Optional[Path] = None,
        epochs: Optional[int] = None,
        qat_epochs: Optional[int] = None,
    ) -> "TrainRecipe":
        """A copy with what the command line says instead."""
        changes: Dict[str, Any] = {}
        given = {"yolox": init, "master": master}
        if init is not None or master is not None:
            update = {key: path for key, path in given.items() if path is not None}
            changes["init"] = self.init.model_copy(update=update)
        if epochs is not None:
            changes["schedule"] = self.schedule.model_copy(update={"epochs": epochs})
        if qat_epochs is not None:
            changes["qat"] = self.qat.model_copy(update={"epochs": qat_epochs})
        return self.model_copy(update=changes)


def load_recipe(recipe: str) -> TrainRecipe:
    """Read a recipe by the name of a shipped one, or by path.

    Raises:
        ConfigError: There is no such recipe, or it is not valid.
    """
    path = RECIPES / f"{recipe}.yaml"
    if not path.is_file():
        path = Path(recipe)
    if not path.is_file():
        known = [p.stem for p in RECIPES.glob("*.yaml")]
        raise ConfigError(
            f"training recipe {recipe!r} is neither a file nor a shipped recipe"
            f"{discovery.nearest(recipe, known)}"
        )
    try:
        return TrainRecipe.model_validate(yaml.safe_load(path.read_text()))
    except (ValidationError, yaml.YAMLError) as error:
        raise ConfigError(f"training recipe {path} is not valid: {error}") from error
