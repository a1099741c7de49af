"""The quantised forms of one calibrated model: its layers in INT8, or some of them spared."""

from dataclasses import dataclass, field, replace
from typing import Dict, List

import onnx

from edgecount.toolchain.quantize import score_scale
from edgecount.toolchain.quantize.agreement import Agreement, Scene
from edgecount.toolchain.quantize.bias_correction import Corrections, correct
from edgecount.toolchain.quantize.graph import prepared
from edgecount.toolchain.quantize.precision import PrecisionRules, layers
from edgecount.toolchain.quantize.qdq import write_qdq
from edgecount.toolchain.quantize.score_scale import UNSCALED, ScoreScale
from edgecount.toolchain.quantize.table import CalibrationTable


@dataclass(frozen=True)
class Forms:
    """Makes quantised forms of a model.

    Attributes:
        model: FP32, its channels evened out or not.
        table: Its calibration.
        corrections: What is added to biases of INT8 layers; nothing where empty.
        scores: Layers that make the scores' logits.
        scale: What they are scaled by.
    """

    model: onnx.ModelProto
    table: CalibrationTable
    corrections: Corrections = field(default_factory=dict)
    scores: List[str] = field(default_factory=list)
    scale: ScoreScale = UNSCALED

    def __call__(self, rules: PrecisionRules) -> onnx.ModelProto:
        """The form with these precision rules. Raises as :func:`~.qdq.write_qdq`."""
        model = self.model
        if self.scale != UNSCALED:
            model = score_scale.fold(prepared(model), self.scores, self.scale)
        corrections = {
            name: value * (self.scale.slope if name in self.scores else 1.0)
            for name, value in self.corrections.items()
        }
        return correct(write_qdq(model, self.table, rules), corrections)

    def scaled(self, rules: PrecisionRules, scene: Scene) -> "Forms":
        """The same with scores on FP32's scale, where that brings them nearer to FP32's."""
        if not self.scores:
            return self
        plain = self(rules)
        changed = replace(self, scale=score_scale.fit(scene.pairs(plain)))
        better = scene(changed(rules)).apart < scene(plain).apart
        return changed if better else self


def ranked(forms: Forms, scene: Scene) -> Dict[str, Agreement]:
    """What each layer alone does to what is seen in a scene, the worst first."""
    names = [node.name for node in layers(prepared(forms.model))]
    seen = {
        name: scene(forms(PrecisionRules().keeping([n for n in names if n != name])))
        for name in names
    }
    return dict(sorted(seen.items(), key=lambda item: -item[1].apart))
