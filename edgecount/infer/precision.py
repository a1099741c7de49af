"""What runs a model on this CPU, and in which precision: measured, not assumed.

A network runs in ONNX Runtime or, where it is installed, in OpenVINO. The INT8 file of a model lies
beside it (``head-n.int8.onnx``). It counts where it is faster on this machine and its loss, which
its maker measured and wrote into it, is within the budget.
"""

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Callable, Dict, List, Mapping, NamedTuple, Optional, Tuple, Union

import numpy as np

from edgecount.errors import EdgecountError, ModelError
from edgecount.infer import cpu_features
from edgecount.infer.cpu_features import CpuFeatures
from edgecount.infer.detector import Network
from edgecount.infer.onnxruntime import read_metadata
from edgecount.records import Float32Array

METADATA_KEY = "edgecount.quantisation"
CACHE_VARIABLE = "EDGECOUNT_CACHE"
_FASTER = 1.05  # less is noise, FP32 is exact, and ONNX Runtime is there anyway
_ROUNDS = 5

Open = Callable[[Path], Network]


class Runtime(NamedTuple):
    """A library that runs networks on the CPU.

    Attributes:
        name: ``onnxruntime`` or ``openvino``.
        version: Of the library; a measurement holds for this one only.
        open: Opens an ONNX file. Raises EdgecountError.
    """

    name: str
    version: str
    open: Open


class Candidate(NamedTuple):
    """One way to run a model."""

    runtime: Runtime
    path: Path
    precision: str

    @property
    def label(self) -> str:
        """For messages and as the key of its time."""
        return f"{self.runtime.name} {self.precision}"


@dataclass(frozen=True)
class Choice:
    """Which file counts, in what, and why.

    Attributes:
        runtime: What runs it.
        path: The file.
        precision: ``fp32`` or ``int8``.
        reason: Why, for logs.
        times_ms: Median time of one picture by runtime and precision, as far as measured.
    """

    runtime: Runtime
    path: Path
    precision: str
    reason: str
    times_ms: Mapping[str, float] = field(default_factory=dict)


def int8_beside(path: Path) -> Optional[Path]:
    """The INT8 file of a model; None where there is none, or the model is one itself."""
    found = path.with_name(f"{path.stem}.int8.onnx")
    return found if found.is_file() else None


def choose(
    path: Path,
    asked: str,
    size: Tuple[int, int],
    runtimes: List[Runtime],
    *,
    cache: Optional[Path] = None,
    features: Optional[CpuFeatures] = None,
) -> Choice:
    """Choose the file of a model that counts on this CPU, and what runs it.

    Where there is more than one way, each is timed once on this machine.

    Args:
        path: The FP32 file.
        asked: ``auto``, ``fp32``, ``fp16`` or ``int8``. FP16 is no gain on a CPU: FP32 counts.
        size: Width and height of the network's input.
        runtimes: What may run it, the one to take in doubt first.
        cache: Folder where measurements are kept; the user's cache where None.
        features: The processor; this machine's where None.

    Raises:
        ModelError: INT8 is asked for and there is no such file.
        EdgecountError: Nothing runs it; the first runtime's reason.
    """
    features = features or cpu_features.read()
    files, reason = _files(path, asked, features)
    ways = [Candidate(r, file, kind) for file, kind in files for r in runtimes]
    if len(ways) == 1:
        return Choice(*ways[0], reason)
    entry = (cache or _cache()) / f"precision-{_key(ways, size, features)}.json"
    times = _kept(entry, [way.label for way in ways])
    if not times:
        times, failed = _times(ways, size)
        reason = "; ".join([reason, *failed])
        if not failed:
            _keep(entry, times)
    return _fastest([way for way in ways if way.label in times], times, reason)


def _files(path: Path, asked: str, features: CpuFeatures) -> Tuple[List[Tuple[Path, str]], str]:
    """The files that may count with their precisions, exact ones first; why no others."""
    quantised = int8_beside(path)
    exact = [(path, "fp32")]
    if asked == "int8":
        if quantised is None:
            raise ModelError(
                f"precision int8 is asked for, but {path.stem}.int8.onnx is not beside {path}: "
                "make it with  edgecount quantize"
            )
        return [(quantised, "int8")], "asked for"
    if quantised is None:
        return exact, "there is no INT8 file"
    if asked != "auto":
        return exact, "asked for"
    if not features.fast_int8:
        return exact, features.describe()
    try:
        within = _within_budget(read_metadata(quantised))
    except ModelError as error:
        return exact, f"the INT8 file cannot be used: {error}"
    if not within:
        return exact, "the INT8 file is not marked as within its budget"
    return [*exact, (quantised, "int8")], "the INT8 file is within its budget"


def _fastest(ways: List[Candidate], times: Mapping[str, float], reason: str) -> Choice:
    best = ways[0]
    for way in ways[1:]:
        if times[best.label] > times[way.label] * _FASTER:
            best = way
    measured = ", ".join(f"{way.label} {times[way.label]:.1f} ms" for way in ways)
    return Choice(*best, f"{reason}; a picture takes {measured}", times)


def _times(ways: List[Candidate], size: Tuple[int, int]) -> Tuple[Dict[str, float], List[str]]:
    """Median milliseconds of each way, in turns, so that other work slows all alike.

    Also why ways are missing. Raises EdgecountError, the first's, where none runs.
    """
    width, height = size
    picture = np.full((1, 3, height, width), 114.0, np.float32)
    opened = [(way.label, _open(way, picture)) for way in ways]
    running = {name: one for name, one in opened if not isinstance(one, EdgecountError)}
    failures = [one for _, one in opened if isinstance(one, EdgecountError)]
    if not running:
        raise failures[0]
    taken: Dict[str, List[float]] = {label: [] for label in running}
    for _ in range(_ROUNDS):
        for label, network in running.items():
            started = perf_counter()
            network.run(picture)
            taken[label].append(1e3 * (perf_counter() - started))
    times = {label: float(np.median(values)) for label, values in taken.items()}
    return times, [str(error) for error in failures]


def _open(way: Candidate, picture: Float32Array) -> Union[Network, EdgecountError]:
    """The network after a first picture, or why there is none."""
    try:
        network = way.runtime.open(way.path)
        network.run(picture)
    except EdgecountError as error:
        return error
    return network


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


def _key(ways: List[Candidate], size: Tuple[int, int], features: CpuFeatures) -> str:
    """What the measurement depends on: files, size, processor, runtimes."""
    digest = hashlib.sha256()
    for file in sorted({way.path for way in ways}):
        digest.update(file.read_bytes())
    about = {
        "size": list(size),
        "cpu": features.model,
        "flags": sorted(features.flags),
        "ways": [[way.label, way.runtime.version] for way in ways],
    }
    digest.update(json.dumps(about).encode())
    return digest.hexdigest()[:16]


def _kept(entry: Path, labels: List[str]) -> Dict[str, float]:
    """The kept times of all ``labels``; empty where one is not there."""
    try:
        times = json.loads(entry.read_text(encoding="utf-8"))["times_ms"]
        return {label: float(times[label]) for label in labels}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _keep(entry: Path, times: Mapping[str, float]) -> None:
    """Keep a measurement; a cache that cannot be written only means to measure again."""
    part = entry.with_name(f"{entry.name}.{os.getpid()}.part")
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps({"times_ms": dict(times)}), encoding="utf-8")
        part.replace(entry)
    except OSError:
        return


def _cache() -> Path:
    given = os.environ.get(CACHE_VARIABLE)
    return Path(given) if given else Path.home() / ".cache" / "edgecount"
