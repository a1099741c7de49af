"""What became of a model in an engine: fused layers, precisions, and what costs time."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

from edgecount.errors import ConfigError, EngineError
from edgecount.infer.tensorrt import manifest as manifests
from edgecount.infer.tensorrt import plan_file, versions
from edgecount.infer.tensorrt.cache import EngineCache
from edgecount.infer.tensorrt.manifest import Layer, Manifest
from edgecount.toolchain.build.callbacks import Log, make_logger
from edgecount.toolchain.build.layers import engine_layers

_QUANTISERS = ("quantize", "dequantize", "qdq")
_COMPUTING = ("conv", "gemm", "matmul", "matrix", "fully")
_MOST_NAMED = 3


@dataclass(frozen=True)
class Row:
    """A layer and what is to be said of it.

    Attributes:
        layer: The layer.
        fused: ONNX nodes, or parts of the name, that it computes in one go.
        remark: ``reformat``, ``left-over``, ``siblings``, or empty.
    """

    layer: Layer
    fused: Tuple[str, ...]
    remark: str


@dataclass(frozen=True)
class Inspection:
    """An engine, looked at.

    Attributes:
        engine: Its file.
        manifest: What is beside it; None for a stranger's engine.
        layers_of: ``engine``, or ``network`` for the layers before fusion.
        rows: All layers, in the order of their execution.
        findings: Sentences about what costs time.
    """

    engine: Path
    manifest: Optional[Manifest]
    layers_of: str
    rows: Tuple[Row, ...]
    findings: Tuple[str, ...]

    def precisions(self) -> Dict[str, int]:
        """How many layers there are of each precision, most frequent first."""
        counts: Dict[str, int] = {}
        for row in self.rows:
            name = row.layer.precision or "?"
            counts[name] = counts.get(name, 0) + 1
        return dict(sorted(counts.items(), key=lambda item: -item[1]))

    def as_dict(self) -> Dict[str, Any]:
        """As a JSON object."""
        return {
            "engine": str(self.engine),
            "layers_of": self.layers_of,
            "precisions": self.precisions(),
            "findings": list(self.findings),
            "layers": [
                {**row.layer.model_dump(mode="json"), "fused": row.fused, "remark": row.remark}
                for row in self.rows
            ],
        }


def find_engine(name: str, cache: EngineCache) -> Path:
    """An engine file, or the engine that a model uses now.

    Raises:
        ConfigError: There is neither, or the model has several.
    """
    if Path(name).is_file():
        return Path(name)
    slots = cache.slots(name)
    entries = [e for e in (slot.entry(slot.index().current) for slot in slots) if e is not None]
    if len(entries) == 1:
        return entries[0].engine
    if not entries:
        raise ConfigError(f"{name} is no engine file, and no engine of such a model is built")
    listed = "\n  ".join(str(e.engine) for e in entries)
    raise ConfigError(f"{name} has several engines; give one of\n  {listed}")


def inspect(engine: Path, runtime: Optional[str] = None) -> Inspection:
    """Look at an engine: by TensorRT where this machine can open it, else by its manifest.

    Raises:
        ConfigError: The file cannot be read, or is no engine.
        EngineError: It can neither be opened here nor has it a manifest.
    """
    if engine.suffix == ".onnx":
        raise ConfigError(f"{engine} is an ONNX file: build it, then inspect its engine")
    manifest = _manifest(engine)
    if manifest is not None and manifest.layers_of == "engine":
        return _inspection(engine, manifest, "engine", manifest.layers)
    try:
        opened = _opened(engine, manifest.key.runtime if manifest else runtime)
    except EngineError:
        if manifest is None:
            raise
        opened = None
    if opened is not None:
        return _inspection(engine, manifest, "engine", opened)
    if manifest is None:
        raise EngineError(
            f"{engine} cannot be opened here, and no manifest ({engine.stem}.json) is beside it"
        )
    return _inspection(engine, manifest, "network", manifest.layers)


def _manifest(engine: Path) -> Optional[Manifest]:
    beside = engine.with_suffix(".json")
    return manifests.read(beside) if beside.is_file() else None


def _opened(engine: Path, runtime: Optional[str]) -> Optional[List[Layer]]:
    file = plan_file.read(engine)
    trt = versions.find(runtime)
    logger = make_logger(trt.module, Log(_nobody, quiet=True))
    layers = engine_layers(trt.module, logger, file.plan)
    return None if layers is None else [Layer.model_validate(layer) for layer in layers]


def _nobody(kind: str, **fields: Any) -> None:
    """Opening an engine reports no progress."""


def _inspection(
    engine: Path, manifest: Optional[Manifest], layers_of: str, layers: Sequence[Layer]
) -> Inspection:
    rows = tuple(_row(layer, layers_of == "engine") for layer in layers)
    findings = tuple(_findings(rows)) if layers_of == "engine" else (_BEFORE_FUSION,)
    return Inspection(engine, manifest, layers_of, rows, findings)


_BEFORE_FUSION = (
    "these are the layers before TensorRT fuses them: the engine was built without a GPU that "
    "can open it, so nothing can be said of fusion and reformats; inspect it on its own device"
)


def _row(layer: Layer, built: bool) -> Row:
    parts = layer.parts or tuple(p.strip() for p in layer.name.replace(" || ", " + ").split(" + "))
    remark = _remark(layer) if built else ""
    return Row(layer, parts if len(parts) > 1 else (), remark)


def _remark(layer: Layer) -> str:
    kind = layer.kind.lower()
    if "reformat" in kind or layer.name.lower().startswith("reformatting"):
        return "reformat"
    if any(word in kind for word in _QUANTISERS):
        return "left-over"
    return "siblings" if " || " in layer.name else ""


def _findings(rows: Sequence[Row]) -> List[str]:
    findings = []
    fused = sum(len(r.fused) for r in rows)
    if fused:
        many = sum(bool(r.fused) for r in rows)
        findings.append(f"{fused} nodes of the model are fused into {many} layers")
    siblings = [r for r in rows if r.remark == "siblings"]
    if siblings:
        findings.append(f"{_count(siblings, 'layer')} computed as siblings in one launch")
    reformats = [r for r in rows if r.remark == "reformat"]
    if reformats:
        findings.append(
            f"{_count(reformats, 'reformat')} copy data between layouts or precisions, which costs "
            f"time: {_named(reformats)}; neighbours of one precision need none"
        )
    left = [r for r in rows if r.remark == "left-over"]
    if left:
        findings.append(
            f"{_count(left, 'Q/DQ layer')} not fused into a neighbour: {_named(left)}; give the "
            "inputs of an Add or Concat one scale, or leave that layer unquantised"
        )
    findings.extend(_float_convolutions(rows))
    return findings


def _float_convolutions(rows: Sequence[Row]) -> List[str]:
    computing = [r for r in rows if any(w in r.layer.kind.lower() for w in _COMPUTING)]
    quantised = [r for r in computing if r.layer.precision == "int8"]
    if not quantised or len(quantised) == len(computing):
        return []
    others = [r for r in computing if r.layer.precision != "int8"]
    share = f"{len(quantised)} of {len(computing)} convolutions compute in INT8"
    return [f"{share}; the others are {_named(others)}"]


def _count(rows: Sequence[Row], what: str) -> str:
    return f"{len(rows)} {what}{'' if len(rows) == 1 else 's'}"


def _named(rows: Sequence[Row]) -> str:
    names = [short(r.layer.name) for r in rows[:_MOST_NAMED]]
    more = len(rows) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")


def short(name: str, most: int = 60) -> str:
    """A layer's name cut to what fits into a line."""
    return name if len(name) <= most else f"{name[: most - 1]}…"
