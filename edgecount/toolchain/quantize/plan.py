"""What is wanted of an INT8 file, what it is judged by, and what came of it."""

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import onnx

from edgecount.toolchain.quantize.agreement import Agreement, Scene
from edgecount.toolchain.quantize.judge import Judge, Verdict
from edgecount.toolchain.quantize.precision import PrecisionRules
from edgecount.toolchain.quantize.score_scale import UNSCALED, ScoreScale
from edgecount.toolchain.quantize.sensitivity import Sensitivity
from edgecount.toolchain.quantize.table import CalibrationTable

CANDIDATES: Mapping[str, Tuple[str, Mapping[str, Any]]] = {
    "entropy": ("entropy", {}),
    "percentile 99.9": ("percentile", {"percentile": 99.9}),
    "percentile 99.99": ("percentile", {"percentile": 99.99}),
    "percentile 99.999": ("percentile", {"percentile": 99.999}),
    "minmax": ("minmax", {}),
}
"""Calibrators that are tried, with their options, by the name that results give them."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What is wanted.

    Attributes:
        budget: Points of AP50 that may be lost.
        rules: Where the search starts.
        spare: Precision of the layers that are spared, ``fp16`` or ``fp32``.
        methods: Names of :data:`CANDIDATES` to try.
        equalise: Whether channels are evened out first (:mod:`.equalize`).
        correct: Whether biases are corrected (:mod:`.bias_correction`) where that helps.
        agreement: Least F1 with FP32's detections on a scene, 0..1.
        count_error: Crossings by which the error of the totals may grow.
        confirmations: Sets of spared layers that are counted with, at most.
    """

    budget: float
    rules: PrecisionRules = field(default_factory=PrecisionRules)
    spare: str = "fp16"
    methods: Sequence[str] = tuple(CANDIDATES)
    equalise: bool = True
    correct: bool = True
    agreement: float = 0.0
    count_error: float = 0.0
    confirmations: int = 6


@dataclass(frozen=True)
class Yardsticks:
    """What forms of the model are judged by.

    Attributes:
        judge: Labelled pictures that the model is not calibrated on.
        ranking: Judges the layers one by one where there is no scene; ``judge`` where None.
        scene: Frames on which a form must see what FP32 sees.
        counted: Tells by how many crossings the count error of a form is larger than FP32's.
    """

    judge: Judge
    ranking: Optional[Judge] = None
    scene: Optional[Scene] = None
    counted: Optional[Callable[[onnx.ModelProto], int]] = None


@dataclass(frozen=True)
class Tuned:
    """What was made.

    Attributes:
        model: The quantised model.
        table: The calibration that was chosen.
        calibrator: Its name in :data:`CANDIDATES`.
        tried: Calibrator → what everything in INT8 gives with it.
        fp32: Average precision of the model as it is, per cent.
        final: Of what was made.
        loss: Points of AP50 that are lost.
        within: Whether all budgets are kept.
        spared: Layers that are not INT8 for the sake of the budgets.
        sets: How many sets of layers were measured.
        sensitivity: Each layer's damage by labels; None where it was not needed.
        damage: Each layer's damage on the scene, the worst first; empty where it was not needed.
        agreement: With FP32 on the scene; None without one.
        bought: Spared layer → points of agreement that are lost if it goes back to INT8.
        corrected: Whether biases were corrected.
        scale: What scores' logits were scaled by.
        count_grown: Growth of the count error; None where nothing was counted.
    """

    model: onnx.ModelProto
    table: CalibrationTable
    calibrator: str
    tried: Dict[str, Verdict]
    fp32: float
    final: Verdict
    loss: float
    within: bool
    spared: List[str]
    sets: int
    sensitivity: Optional[Sensitivity] = None
    damage: Dict[str, Agreement] = field(default_factory=dict)
    agreement: Optional[Agreement] = None
    bought: Dict[str, float] = field(default_factory=dict)
    corrected: bool = False
    scale: ScoreScale = UNSCALED
    count_grown: Optional[int] = None

    def as_dict(self) -> Dict[str, Any]:
        """For JSON, without the model."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        for name in ("model", "table"):
            del plain[name]
        plain["tried"] = {name: asdict(verdict) for name, verdict in self.tried.items()}
        plain["damage"] = {name: asdict(seen) for name, seen in self.damage.items()}
        plain["final"] = asdict(self.final)
        plain["agreement"] = asdict(self.agreement) if self.agreement else None
        plain["sensitivity"] = self.sensitivity.as_dict() if self.sensitivity else None
        plain["scale"] = self.scale._asdict()
        return plain


def sparing(plan: Plan, layers: Sequence[str]) -> PrecisionRules:
    """The plan's rules, and these layers in the precision that it spares them in."""
    return plan.rules.keeping(layers, plan.spare)
