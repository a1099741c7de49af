"""From an FP32 model to an INT8 file within its budgets, without a person.

Even out the channels, calibrate, choose the calibrator that keeps most, correct biases, rank layers
by their damage, spare the fewest that bring the losses within the budgets, and check what was
written.
"""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Dict, Iterable, Mapping

import onnx

from edgecount.errors import ConfigError, ModelError
from edgecount.infer.precision import METADATA_KEY
from edgecount.infer.recipe import Recipe
from edgecount.records import UInt8Array
from edgecount.toolchain.onnx_files import leave_note, note_in
from edgecount.toolchain.quantize import bias_correction
from edgecount.toolchain.quantize.activations import GatherSettings, gather
from edgecount.toolchain.quantize.agreement import Agreement
from edgecount.toolchain.quantize.calibrate import choose
from edgecount.toolchain.quantize.equalize import equalise
from edgecount.toolchain.quantize.forms import Forms
from edgecount.toolchain.quantize.graph import prepared
from edgecount.toolchain.quantize.judge import Verdict
from edgecount.toolchain.quantize.plan import CANDIDATES, Plan, Say, Tuned, Yardsticks
from edgecount.toolchain.quantize.qdq import tensors_to_calibrate
from edgecount.toolchain.quantize.score_scale import score_layers
from edgecount.toolchain.quantize.search import Search, told
from edgecount.toolchain.quantize.table import CalibrationTable

_NEARLY = 0.25  # points of AP50: no more than chance on a few hundred pictures


def tune(
    model: onnx.ModelProto,
    recipe: Recipe,
    images: Iterable[UInt8Array],
    by: Yardsticks,
    plan: Plan,
    *,
    say: Say,
    images_sha256: str = "",
) -> Tuned:
    """Quantise a model within a budget.

    Args:
        model: FP32.
        recipe: Its recipe.
        images: Calibration pictures, (H, W, 3) uint8 BGR; read several times.
        by: What its forms are judged by.
        plan: What is wanted.
        say: Told what is being done.
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
    say(f"calibrated on {gathered.images} pictures; FP32 has AP50 {by.judge.fp32:.2f}")
    forms: Dict[str, Forms] = {}
    tried: Dict[str, Verdict] = {}
    seen: Dict[str, Agreement] = {}
    for name in plan.methods:
        method, options = CANDIDATES[name]
        table, _ = choose(gathered, method, options, images_sha256=images_sha256)
        forms[name] = Forms(model, table, scores=score_layers(prepared(model), recipe))
        form = forms[name](plan.rules)
        tried[name] = by.judge(form)
        if by.scene is not None:
            seen[name] = by.scene(form)
        say(f"{name}: {told(tried[name], seen.get(name))}")
    best = _best(tried, seen, {name: form.table for name, form in forms.items()})
    chosen = forms[best]
    if plan.correct:
        chosen = _corrected(chosen, images, recipe, by, plan, say)
    return Search(chosen, by, plan, best, tried, say).run()


def _best(
    tried: Mapping[str, Verdict],
    seen: Mapping[str, Agreement],
    tables: Mapping[str, CalibrationTable],
) -> str:
    """Of the calibrators that keep most, or nearly so, the one nearest to FP32 on the scene.

    Without a scene the one that clips least: clipping costs little on pictures like those of
    calibration, and much on others.
    """
    most = max(verdict.ap50 for verdict in tried.values())
    close = [name for name, verdict in tried.items() if verdict.ap50 >= most - _NEARLY]
    if seen:
        return min(close, key=lambda name: seen[name].apart)
    return max(close, key=lambda name: sum(map(math.log, tables[name].amax.values())))


def _corrected(
    forms: Forms, images: Iterable[UInt8Array], recipe: Recipe, by: Yardsticks, plan: Plan, say: Say
) -> Forms:
    """With corrected biases, if that is nearer to FP32 on what the biases were not measured on."""
    corrections = bias_correction.measure(forms.model, forms.table, images, recipe)
    changed = replace(forms, corrections=corrections)
    pair = forms(plan.rules), changed(plan.rules)
    if by.scene is not None:
        before, after = (by.scene(form).apart for form in pair)
        helps, unit = after < before, f"logits {before:.3f} apart, {after:.3f} then"
    else:
        before, after = (by.judge(form).sqnr_db for form in pair)
        helps, unit = after > before, f"SQNR {before:.1f} dB, {after:.1f} dB then"
    say(f"correcting biases {'helps' if helps else 'does not help'}: {unit}")
    return changed if helps else forms


def note_loss(model: onnx.ModelProto, loss: Mapping[str, object]) -> None:
    """Write into a quantised model's metadata what it loses against FP32."""
    note = note_in(model, METADATA_KEY)
    if note is None:
        raise ModelError("the model was not quantised by edgecount: it has no note of how")
    told = {**json.loads(note), "loss": dict(loss)}
    leave_note(model, METADATA_KEY, json.dumps(told, sort_keys=True))


def save(tuned: Tuned, path: Path) -> None:
    """Write the model with a note of what it loses, and its calibration table beside it.

    Raises:
        ModelError: The disk refuses.
    """
    note_loss(tuned.model, _losses(tuned))
    part = path.with_name(path.name + ".part")
    table = path.with_suffix(".table.json")
    try:
        part.write_bytes(tuned.model.SerializeToString())
        tuned.table.save(table)
        cache = tuned.table.to_tensorrt_cache()
        table.with_suffix(".cache").write_text(cache, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise ModelError(f"cannot write {path}: {error}") from error


def _losses(tuned: Tuned) -> Dict[str, object]:
    losses: Dict[str, object] = {"ap50_points": round(tuned.loss, 3), "within": tuned.within}
    if tuned.agreement is not None:
        losses["agreement"] = round(tuned.agreement.f1, 4)
    if tuned.count_grown is not None:
        losses["count_error"] = tuned.count_grown
    return losses
