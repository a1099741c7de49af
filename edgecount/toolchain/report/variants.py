"""The precisions of a model that a report compares, in the order of its table."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterable, List, Mapping, Optional

from edgecount.errors import MissingExtraError
from edgecount.infer.recipe import Recipe
from edgecount.infer.tensorrt.manifest import Precision
from edgecount.records import UInt8Array
from edgecount.toolchain.onnx_files import read_onnx
from edgecount.toolchain.quantize.histogram import Histogram
from edgecount.toolchain.quantize.table import CalibrationTable

if TYPE_CHECKING:
    from edgecount.toolchain.quantize.precision import PrecisionRules

FP32, FP16, BASIC, TUNED, QAT = "fp32", "fp16", "int8-basic", "int8-tuned", "int8-qat"
BASIC_METHOD = "minmax"
USUAL_PRESET = "int8+fp32-head"  # of a model whose recipe says nothing

Notice = Callable[[str], None]


@dataclass(frozen=True)
class Variant:
    """One precision of a model.

    Attributes:
        key: One of the keys above.
        title: As the table has it.
        path: The ONNX file.
        how: How the file was made, in a few words.
    """

    key: str
    title: str
    path: Path
    how: str

    @property
    def precision(self) -> Precision:
        """What an engine of the file is built in."""
        return "int8" if self.key.startswith("int8") else "fp16" if self.key == FP16 else "fp32"


@dataclass(frozen=True)
class Sources:
    """What a report starts from.

    Attributes:
        model: The FP32 file.
        recipe: Its recipe.
        tuned: A tuned INT8 file; made here where None.
        qat: A file that was trained quantised; left out where None.
    """

    model: Path
    recipe: Recipe
    tuned: Optional[Path] = None
    qat: Optional[Path] = None


@dataclass(frozen=True)
class Prepared:
    """The variants; the tuned calibration, and the activations that it was made from."""

    variants: List[Variant]
    table: CalibrationTable
    histograms: Dict[str, Histogram]


def beside(model: Path, kind: str) -> Optional[Path]:
    """The variant of a model that lies beside it, as ``head-n.int8.onnx``; None without one."""
    path = model.with_name(f"{model.stem}.{kind}.onnx")
    return path if path.is_file() else None


def prepare(
    sources: Sources, images: Iterable[UInt8Array], folder: Path, notice: Notice
) -> Prepared:
    """Make the files that are missing.

    Args:
        sources: The model, and what was made of it already.
        images: Calibration images, read once.
        folder: Where new files go.
        notice: Told what is suspicious.

    Raises:
        MissingExtraError: onnx is not installed.
        ModelError: The model cannot be quantised.
        DatasetError: There is no calibration image.
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingExtraError("onnx", "report") from error
    from edgecount.toolchain.quantize import precision
    from edgecount.toolchain.quantize.activations import gather
    from edgecount.toolchain.quantize.calibrate import choose, method_of
    from edgecount.toolchain.quantize.half import to_half
    from edgecount.toolchain.quantize.qdq import write_qdq

    model = read_onnx(sources.model)
    gathered = gather(sources.model, images, sources.recipe)
    folder.mkdir(parents=True, exist_ok=True)
    stem = sources.model.stem

    def written(kind: str, made: Any) -> Path:
        path = folder / f"{stem}.{kind}.onnx"
        onnx.save(made, str(path))
        return path

    basic_table, _ = choose(gathered, BASIC_METHOD)
    basic = written(BASIC, write_qdq(model, basic_table, precision.preset("int8")))
    method, options = method_of(sources.recipe)
    table, histograms = choose(gathered, method, options, notice=notice)
    rules = usual_rules(sources.recipe)
    variants = [
        Variant(FP32, "FP32", sources.model, "as trained"),
        Variant(FP16, "FP16", written(FP16, to_half(model)), "all layers in FP16"),
        Variant(BASIC, "INT8, basic", basic, f"{BASIC_METHOD} calibration, every layer INT8"),
        _tuned(sources, lambda: written(TUNED, write_qdq(model, table, rules)), method),
    ]
    if sources.qat is not None:
        how = "trained with its rounding in place"
        variants.append(Variant(QAT, "INT8 + QAT", sources.qat, how))
    return Prepared(variants, table, histograms)


def _tuned(sources: Sources, make: Callable[[], Path], method: str) -> Variant:
    title = "INT8 + mixed precision + tuned calibration"
    if sources.tuned is not None:
        return Variant(TUNED, title, sources.tuned, f"{sources.tuned.name}, as it was given")
    rules = usual_rules(sources.recipe)
    kept = [f"{', '.join(p)} in {n}" for n, p in (("FP16", rules.fp16), ("FP32", rules.fp32)) if p]
    how = "; ".join([f"{method} calibration", *kept])
    return Variant(TUNED, title, make(), how)


def usual_rules(recipe: Recipe) -> "PrecisionRules":
    """The recipe's precision rules; an FP32 head where it has none."""
    from edgecount.toolchain.quantize.precision import preset, rules_of

    section = recipe.precision
    return rules_of(section) if section.model_fields_set else preset(USUAL_PRESET)


def compared(histograms: Mapping[str, Histogram]) -> List[Histogram]:
    """Activations that lose most to clipping first: by peak over clipping point."""
    live = [h for h in histograms.values() if h.peak > 0 and h.amax > 0]
    return sorted(live, key=lambda h: h.amax / h.peak)
