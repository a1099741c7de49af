"""What quantisation does to counts: the figure that a building pays by."""

import onnx

from edgecount.config import ModelSettings
from edgecount.infer.detector import OnnxDetector, thresholds
from edgecount.infer.recipe import Recipe
from edgecount.toolchain.evaluate import count
from edgecount.toolchain.evaluate.truth import CountTruth
from edgecount.toolchain.quantize.reference import SessionNetwork


class CountJudge:
    """A clip whose crossings are known, counted as ``edgecount eval count`` does.

    Every form is run as it is written (:mod:`.reference`).

    Attributes:
        fp32: Error of the totals of the model as it is, summed over lines and directions.
        true: Crossings that there were.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        recipe: Recipe,
        clip: str,
        truth: CountTruth,
        threads: int = 1,
    ) -> None:
        """Count the clip with the model as it is.

        Args:
            model: FP32.
            recipe: Its recipe.
            clip: Video file, or folder of pictures.
            truth: Its true crossings.
            threads: CPU threads of the network.

        Raises:
            ModelError, EngineError: The model does not run.
            SourceError: The clip cannot be read.
            DatasetError: Its pictures have another shape than the truth's.
        """
        self._recipe = recipe
        self._clip = clip
        self._truth = truth
        self._threads = threads
        report = self.report(model)
        self.fp32 = report.total_error
        self.true = report.true

    def __call__(self, model: onnx.ModelProto) -> int:
        """By how much the error is larger than FP32's; negative where it is smaller."""
        return self.report(model).total_error - self.fp32

    def report(self, model: onnx.ModelProto) -> count.CountReport:
        """Count with a form of the model. Raises as the constructor."""
        recipe = self._recipe
        detector = OnnxDetector(
            SessionNetwork(model, fuse=False, threads=self._threads),
            recipe,
            size=(recipe.input.width, recipe.input.height),
            thresholds=thresholds(recipe, ModelSettings()),
        )
        return count.report_of_detector(self._clip, detector, recipe, self._truth)
