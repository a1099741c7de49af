"""FP32 or INT8 on a CPU: measured, not assumed.

The INT8 file of a model lies beside it (``head-n.int8.onnx``). It counts where it is faster on
this machine and its loss, which its maker measured and wrote into it, is within the budget.
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Callable, Dict, List, Mapping, Optional, Tuple

import numpy as np
import onnxruntime

from edgecount.errors import EdgecountError, ModelError
from edgecount.infer import cpu_features
from edgecount.infer.cpu_features import CpuFeatures
from edgecount.infer.detector import Network
from edgecount.infer.onnxruntime import read_metadata

METADATA_KEY = "edgecount.quantisation"
CACHE_VARIABLE = "EDGECOUNT_CACHE"
_FASTER = 1.05  # less is noise, and FP32 is exact
_ROUNDS = 5

Open = Callable[[Path], Tuple[Network, Dict[str, str]]]


@dataclass(frozen=True)
class Choice:
    """Which file counts, and why.

    Attributes:
        path: The file.
        precision: ``fp32`` or ``int8``.
        reason: Why, for logs.
        fp32_ms: Median time of one picture in FP32; None where it was not measured.
        int8_ms: Likewise in INT8.
    """

    path: Path
    precision: str
    reason: str
    fp32_ms: Optional[float] = None
    int8_ms: Optional[float] = None


def int8_beside(path: Path) -> Optional[Path]:
    """The INT8 file of a model; None where there is none, or the model is one itself."""
    found = path.with_name(f"{path.stem}.int8.onnx")
    return found if found.is_file() else None


def choose(
    path: Path,
    asked: str,
    size: Tuple[int, int],
    open_network: Open,
    *,
    cache: Optional[Path] = None,
    features: Optional[CpuFeatures] = None,
) -> Choice:
    """Choose the file of a model that counts on this CPU.

    Args:
        path: The FP32 file.
        asked: ``auto``, ``fp32``, ``fp16`` or ``int8``. FP16 is no gain on a CPU: FP32 counts.
        size: Width and height of the network's input.
        open_network: Opens an ONNX file.
        cache: Folder where measurements are kept; the user's cache where None.
        features: The processor; this machine's where None.

    Raises:
        ModelError: INT8 is asked for and there is no such file.
    """
    quantised = int8_beside(path)
    if asked == "int8":
        if quantised is None:
            raise ModelError(
                f"precision int8 is asked for, but {path.stem}.int8.onnx is not beside {path}: "
                "make it with  edgecount quantize"
            )
        return Choice(quantised, "int8", "asked for")
    if asked != "auto" or quantised is None:
        return Choice(path, "fp32", "asked for" if quantised else "there is no INT8 file")
    features = features or cpu_features.read()
    if not features.fast_int8:
        return Choice(path, "fp32", features.describe())
    try:
        return _measured(path, quantised, size, open_network, cache or _cache(), features)
    except EdgecountError as error:
        return Choice(path, "fp32", f"the INT8 file cannot be used: {error}")


def _measured(
    path: Path,
    quantised: Path,
    size: Tuple[int, int],
    open_network: Open,
    cache: Path,
    features: CpuFeatures,
) -> Choice:
    entry = cache / f"precision-{_key(path, quantised, size, features)}.json"
    kept = _kept(entry)
    if kept is None:
        network, metadata = open_network(quantised)
        if not _within_budget(metadata):
            return Choice(path, "fp32", "the INT8 file is not marked as within its budget")
        kept = _times([open_network(path)[0], network], size)
        _keep(entry, kept)
    fp32, int8 = kept
    faster = fp32 > int8 * _FASTER
    reason = f"INT8 takes {int8:.1f} ms a picture here, FP32 {fp32:.1f} ms"
    chosen = (quantised, "int8") if faster else (path, "fp32")
    return Choice(*chosen, reason, fp32, int8)


def _times(networks: List[Network], size: Tuple[int, int]) -> Tuple[float, float]:
    """Median milliseconds of each network, in turns, so that other work slows both."""
    width, height = size
    picture = np.full((1, 3, height, width), 114.0, np.float32)
    taken: List[List[float]] = [[] for _ in networks]
    for network in networks:
        network.run(picture)
    for _ in range(_ROUNDS):
        for network, times in zip(networks, taken):
            started = perf_counter()
            network.run(picture)
            times.append(1e3 * (perf_counter() - started))
    first, second = (float(np.median(times)) for times in taken)
    return first, second


def over_budget(quantised: Path) -> bool:
    """Whether an INT8 file says that it loses more than its recipe allows.

    One that says nothing, of another tool, is not: whoever put it there vouches for it.
    """
    try:
        return _within_budget(read_metadata(quantised)) is False
    except ModelError:
        return False


def _within_budget(metadata: Mapping[str, str]) -> Optional[bool]:
    """What an INT8 file says of its own loss; None where it says nothing."""
    try:
        return bool(json.loads(metadata[METADATA_KEY])["loss"]["within"])
    except (KeyError, TypeError, ValueError):
        return None


def _key(path: Path, quantised: Path, size: Tuple[int, int], features: CpuFeatures) -> str:
    """What the measurement depends on: files, size, processor, runtime."""
    digest = hashlib.sha256()
    for file in (path, quantised):
        digest.update(file.read_bytes())
    about = {"size": list(size), "cpu": features.model, "flags": sorted(features.flags)}
    digest.update(json.dumps({**about, "ort": onnxruntime.__version__}).encode())
    return digest.hexdigest()[:16]


def _kept(entry: Path) -> Optional[Tuple[float, float]]:
    try:
        times = json.loads(entry.read_text(encoding="utf-8"))
        return float(times["fp32_ms"]), float(times["int8_ms"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _keep(entry: Path, times: Tuple[float, float]) -> None:
    """Keep a measurement; a cache that cannot be written only means to measure again."""
    part = entry.with_name(f"{entry.name}.{os.getpid()}.part")
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps({"fp32_ms": times[0], "int8_ms": times[1]}), encoding="utf-8")
        part.replace(entry)
    except OSError:
        return


def _cache() -> Path:
    given = os.environ.get(CACHE_VARIABLE)
    return Path(given) if given else Path.home() / ".cache" / "edgecount"


def as_dict(choice: Choice) -> Dict[str, object]:
    """For JSON and logs."""
    return {**asdict(choice), "path": str(choice.path)}
