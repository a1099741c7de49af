"""Which layers suffer from INT8, and the fewest to spare it."""

from dataclasses import asdict, dataclass
from typing import Any, Callable, Dict, List, Optional, Sequence

import onnx

from edgecount.toolchain.quantize.graph import prepared
from edgecount.toolchain.quantize.judge import Judge, Verdict
from edgecount.toolchain.quantize.precision import PrecisionRules, layers
from edgecount.toolchain.quantize.qdq import write_qdq
from edgecount.toolchain.quantize.table import CalibrationTable

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class LayerDamage:
    """What INT8 in one layer costs.

    Attributes:
        layer: Name of the node.
        kind: Its operator.
        alone: With this layer alone in INT8.
        without: With all but this layer in INT8; None where it was not measured.
    """

    layer: str
    kind: str
    alone: Verdict
    without: Optional[Verdict]


@dataclass(frozen=True)
class Sensitivity:
    """Every layer's damage, the worst first (by the output's signal to noise).

    Attributes:
        images: Pictures that were judged by.
        fp32: Average precision at overlap 0.5 of the model as it is, per cent.
        int8: With every layer in INT8.
        layers: The worst first.
    """

    images: int
    fp32: float
    int8: Verdict
    layers: List[LayerDamage]

    def as_dict(self) -> Dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @property
    def ranked(self) -> List[str]:
        """Names of the layers, the worst first."""
        return [row.layer for row in self.layers]


def measure(
    model: onnx.ModelProto,
    table: CalibrationTable,
    judge: Judge,
    *,
    reverse: bool = True,
    progress: Optional[Progress] = None,
) -> Sensitivity:
    """Quantise each layer alone, and all but each.

    Args:
        model: FP32.
        table: Its calibration table.
        judge: Of the same model.
        reverse: Whether to measure all but each, too; that takes as long again.
        progress: Called with layers done and layers in all.

    Raises:
        ModelError: The model cannot be quantised.
        DatasetError: The table is not this model's.
    """
    nodes = layers(prepared(model))
    names = [node.name for node in nodes]
    rows = []
    for done, node in enumerate(nodes):
        others = [name for name in names if name != node.name]
        alone = judge(write_qdq(model, table, PrecisionRules().keeping(others)))
        without = None
        if reverse and others:
            without = judge(write_qdq(model, table, PrecisionRules().keeping([node.name])))
        rows.append(LayerDamage(node.name, node.op_type, alone, without))
        if progress is not None:
            progress(done + 1, len(nodes))
    rows.sort(key=lambda row: row.alone.sqnr_db)
    return Sensitivity(judge.images, judge.fp32, judge(write_qdq(model, table)), rows)


@dataclass(frozen=True)
class Spared:
    """The layers to keep out of INT8.

    Attributes:
        layers: Their names, the worst first.
        loss: What is lost then.
        within: Whether that is within the budget.
        tried: How many sets were measured.
    """

    layers: List[str]
    loss: float
    within: bool
    tried: int


def smallest_set(
    ranked: Sequence[str], loss: Callable[[Sequence[str]], float], budget: float
) -> Spared:
    """The fewest layers to spare so that the loss is within the budget.

    Greedy: worse layers are spared first, twice as many each time until it is enough, then
    bisected. Pruning: each spared layer, the least damaging first, goes back to INT8 where
    the loss stays within the budget. No smaller set of these is enough, though another may be.

    Args:
        ranked: Layers, the worst first.
        loss: What is lost when these layers are spared; need not fall with every layer.
        budget: The most that may be lost.
    """
    search = _Search(ranked, loss, budget)
    count = search.enough()
    if count is None:
        return Spared(list(ranked), search.of(ranked), False, search.tried)
    kept = search.pruned(list(ranked[:count]))
    return Spared(kept, search.of(kept), True, search.tried)


class _Search:
    def __init__(
        self, ranked: Sequence[str], loss: Callable[[Sequence[str]], float], budget: float
    ) -> None:
        self._ranked = ranked
        self._loss = loss
        self._budget = budget
        self._known: Dict[Sequence[str], float] = {}

    @property
    def tried(self) -> int:
        return len(self._known)

    def of(self, spared: Sequence[str]) -> float:
        key = tuple(spared)
        if key not in self._known:
            self._known[key] = self._loss(key)
        return self._known[key]

    def enough(self) -> Optional[int]:
        """How many of the worst are enough; None where all are not."""
        fits, total = 0, len(self._ranked)
        failed = -1
        while self.of(self._ranked[:fits]) > self._budget:
            if fits == total:
                return None
            failed, fits = fits, min(max(1, 2 * fits), total)
        while fits - failed > 1:
            middle = (failed + fits) // 2
            if self.of(self._ranked[:middle]) > self._budget:
                failed = middle
            else:
                fits = middle
        return fits

    def pruned(self, spared: List[str]) -> List[str]:
        for name in reversed(list(spared)):
            fewer = [other for other in spared if other != name]
            if self.of(fewer) <= self._budget:
                spared = fewer
        return spared
