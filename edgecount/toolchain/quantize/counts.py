"""What quantisation does to counts: the figure that a building pays by."""

from pathlib import Path
from typing import NamedTuple

from edgecount.config import ModelSettings
from edgecount.infer.detector import OnnxDetector, input_size, thresholds
from edgecount.infer.onnxruntime import open_network
from edgecount.infer.recipe import Recipe
from edgecount.toolchain.evaluate import count
from edgecount.toolchain.evaluate.truth import CountTruth


class CountLoss(NamedTuple):
    """Errors of the totals, summed over lines and directions.

    Attributes:
        fp32: Of the model as it is.
        quantised: Of what was made of it.
        true: Crossings that there were.
    """

    fp32: int
    quantised: int
    true: int

    @property
    def grown(self) -> int:
        """By how much the error is larger; negative where it is smaller."""
        return self.quantised - self.fp32


def measure(fp32: Path, quantised: Path, recipe: Recipe, clip: str, truth: CountTruth) -> CountLoss:
    """Count a clip with both models, as ``edgecount eval count`` does.

    Args:
        fp32: The model as it is.
        quantised: What was made of it.
        recipe: Of both.
        clip: Video file, or folder of pictures.
        truth: Its true crossings.

    Raises:
        ModelError, EngineError: A model cannot be loaded or run.
        SourceError: The clip cannot be read.
        DatasetError: Its pictures have another shape than the truth's.
    """
    reports = [_report(path, recipe, clip, truth) for path in (fp32, quantised)]
    before, after = (report.total_error for report in reports)
    return CountLoss(before, after, reports[0].true)


def _report(path: Path, recipe: Recipe, clip: str, truth: CountTruth) -> count.CountReport:
    network, _ = open_network(path)
    detector = OnnxDetector(
        network,
        recipe,
        size=input_size(network, recipe, path, None),
        thresholds=thresholds(recipe, ModelSettings()),
    )
    return count.report_of_detector(clip, detector, recipe, truth)
