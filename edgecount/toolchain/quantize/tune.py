"""From an FP32 model to an INT8 file within an accuracy budget, without a person.

Even out the channels, calibrate, choose the calibrator that keeps most, rank layers by their
damage, spare the fewest that bring the loss within the budget, and check what was written.
"""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

import onnx

from edgecount.errors import ConfigError, ModelError
from edgecount.infer.recipe import Recipe
from edgecount.records import UInt8Array
from edgecount.toolchain.quantize import sensitivity
from edgecount.toolchain.quantize.activations import GatherSettings, gather
from edgecount.toolchain.quantize.calibrate import choose
from edgecount.toolchain.quantize.equalize import equalise
from edgecount.toolchain.quantize.judge import Judge, Verdict
from edgecount.toolchain.quantize.precision import PrecisionRules
from edgecount.toolchain.quantize.qdq import METADATA_KEY, tensors_to_calibrate, write_qdq
from edgecount.toolchain.quantize.table import CalibrationTable

CANDIDATES: Mapping[str, Tuple[str, Mapping[str, Any]]] = {
    "entropy": ("entropy", {}),
    "percentile 99.9": ("percentile", {"percentile": 99.9}),
    "percentile 99.99": ("percentile", {"percentile": 99.99}),
    "percentile 99.999": ("percentile", {"percentile": 99.999}),
    "minmax": ("minmax", {}),
}
"""Calibrators that are tried, with their options, by the name that results give them."""

_NEARLY = 0.25  # points of AP50: no more than chance on a few hundred pictures

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
    """

    budget: float
    rules: PrecisionRules = field(default_factory=PrecisionRules)
    spare: str = "fp16"
    methods: Sequence[str] = tuple(CANDIDATES)
    equalise: bool = True


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
        within: Whether that is within the budget.
        spared: Layers that are not INT8 for the sake of the budget.
        sets: How many sets of layers were measured.
        sensitivity: Each layer's damage; None where no layer had to be spared.
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
    sensitivity: Optional[sensitivity.Sensitivity]

    def as_dict(self) -> Dict[str, Any]:
        """For JSON, without the model."""
        names = ("calibrator", "fp32", "loss", "within", "spared", "sets")
        plain = {name: getattr(self, name) for name in names}
        plain["tried"] = {name: asdict(verdict) for name, verdict in self.tried.items()}
        plain["final"] = asdict(self.final)
        plain["sensitivity"] = self.sensitivity.as_dict() if self.sensitivity else None
        return plain


def tune(
    model: onnx.ModelProto,
    recipe: Recipe,
    images: Iterable[UInt8Array],
    judge: Judge,
    plan: Plan,
    *,
    say: Say,
    ranking: Optional[Judge] = None,
    images_sha256: str = "",
) -> Tuned:
    """Quantise a model within a budget.

    Args:
        model: FP32.
        recipe: Its recipe.
        images: Calibration pictures, (H, W, 3) uint8 BGR; read twice.
        judge: Of the same model, on labelled pictures that it is not calibrated on.
        plan: What is wanted.
        say: Told what is being done.
        ranking: Judges the layers one by one; ``judge`` where None. Fewer pictures will do.
        images_sha256: Hash of the images, for the table.

    Raises:
        ConfigError: The rules leave nothing to quantise.
        ModelError, EngineError: The model cannot be quantised or run.
        DatasetError: Pictures are missing, or an activation is not finite.
    """
    if plan.equalise:
        model = equalise(model, images, recipe)
    wanted = tensors_to_calibrate(model, plan.rules)
    if not wanted:
        raise ConfigError("the precision rules leave no layer to quantise: loosen them")
    gathered = gather(model, images, recipe, wanted, GatherSettings())
    say(f"calibrated on {gathered.images} pictures; FP32 has AP50 {judge.fp32:.2f}")
    tables: Dict[str, CalibrationTable] = {}
    tried: Dict[str, Verdict] = {}
    for name in plan.methods:
        method, options = CANDIDATES[name]
        tables[name], _ = choose(gathered, method, options, images_sha256=images_sha256)
        tried[name] = judge(write_qdq(model, tables[name], plan.rules))
        say(f"{name}: AP50 {tried[name].ap50:.2f}, SQNR {tried[name].sqnr_db:.1f} dB")
    best = _best(tried, tables)
    return _spare(model, judge, ranking or judge, plan, tables[best], best, tried, say)


def _best(tried: Mapping[str, Verdict], tables: Mapping[str, CalibrationTable]) -> str:
    """Of the calibrators that keep most, or nearly so, the one that clips least.

    Clipping costs little on pictures like those of calibration, and much on others.
    """
    most = max(verdict.ap50 for verdict in tried.values())
    close = [name for name, verdict in tried.items() if verdict.ap50 >= most - _NEARLY]
    return max(close, key=lambda name: sum(map(math.log, tables[name].amax.values())))


def _spare(
    model: onnx.ModelProto,
    judge: Judge,
    ranking: Judge,
    plan: Plan,
    table: CalibrationTable,
    calibrator: str,
    tried: Dict[str, Verdict],
    say: Say,
) -> Tuned:
    damage: Optional[sensitivity.Sensitivity] = None
    ranked: List[str] = []
    if judge.fp32 - tried[calibrator].ap50 > plan.budget:
        say("more than the budget is lost: measuring each layer's damage")
        damage = sensitivity.measure(model, table, ranking, reverse=False)
        ranked = damage.ranked

    def loss(spared: Sequence[str]) -> float:
        verdict = judge(write_qdq(model, table, sparing(plan, spared)))
        say(f"{len(spared)} layers spared: AP50 {verdict.ap50:.2f}")
        return judge.fp32 - verdict.ap50

    found = sensitivity.smallest_set(ranked, loss, plan.budget)
    made = write_qdq(model, table, sparing(plan, found.layers))
    return Tuned(
        model=made,
        table=table,
        calibrator=calibrator,
        tried=tried,
        fp32=judge.fp32,
        final=judge(made),
        loss=found.loss,
        within=found.within,
        spared=found.layers,
        sets=found.tried,
        sensitivity=damage,
    )


def sparing(plan: Plan, layers: Sequence[str]) -> PrecisionRules:
    """The plan's rules, and these layers in the precision that it spares them in."""
    return plan.rules.keeping(layers, plan.spare)


def note_loss(model: onnx.ModelProto, loss: Mapping[str, object]) -> None:
    """Write into a quantised model's metadata what it loses against FP32."""
    entry = next((m for m in model.metadata_props if m.key == METADATA_KEY), None)
    if entry is None:
        raise ModelError("the model was not quantised by edgecount: it has no note of how")
    entry.value = json.dumps({**json.loads(entry.value), "loss": dict(loss)}, sort_keys=True)


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write a model in one piece. Raises ModelError where the disk refuses."""
    part = path.with_name(path.name + ".part")
    try:
        part.write_bytes(model.SerializeToString())
        part.replace(path)
    except OSError as error:
        raise ModelError(f"cannot write {path}: {error}") from error
