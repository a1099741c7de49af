"""Make a calibration set: look at many pictures, keep those that differ, cover the hard ones."""

import shutil
import tempfile
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional, Sequence, Tuple

import cv2
import numpy as np

from edgecount.errors import DatasetError
from edgecount.records import Float32Array, Int64Array, UInt8Array
from edgecount.redact import mask_url
from edgecount.toolchain.quantize.calibration_set import spoil
from edgecount.toolchain.quantize.calibration_set.diversity import (
    DiversePool,
    farthest_first,
    nearest,
)
from edgecount.toolchain.quantize.calibration_set.images import count_notes
from edgecount.toolchain.quantize.calibration_set.judge import Judge
from edgecount.toolchain.quantize.calibration_set.manifest import Entry, Manifest
from edgecount.toolchain.quantize.calibration_set.source import (
    Candidate,
    Notice,
    folder_candidates,
    stream_candidates,
)
from edgecount.toolchain.quantize.calibration_set.traits import Look, Traits, look_at

FEWEST = 16
"""With fewer different pictures a calibration is not worth its name."""

# Part of the set that is chosen because it is dark, blurred or crowded, each …
_HARD_SHARE = 0.05
# … from this part of the candidates, the darkest and so on.
_HARD_PART = 0.1
_DARK_LUMA = 60.0
# Candidates kept for each picture wanted. Frames have to be stored, files are there already.
_FRAMES_KEPT = 2
_FILES_KEPT = 8
# Pictures in a row of a mosaic: heads become so many times smaller.
_GRIDS = (3, 4)
_LEAST_SIDE = 416

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Plan:
    """What set to make.

    Attributes:
        source: A folder of pictures, a video file, or another source as in the configuration.
        count: Pictures wanted, copies included.
        copies: Part of them that are blurred or dark copies, 0..0.5.
        fps: Frames per second looked at, at most; all of a clip and 2 of a camera where None.
        seconds: How long a camera is watched.
        seed: Of the copies' random numbers.
        zoom_out: Part of the set that is mosaics of shrunk pictures, 0..1: small heads.
    """

    source: str
    count: int = 500
    copies: float = 0.1
    fps: Optional[float] = None
    seconds: float = 600.0
    seed: int = 0
    zoom_out: float = 0.0


@dataclass(frozen=True)
class _Kept:
    """A candidate in the pool, and the file that holds it."""

    origin: str
    file: Path
    traits: Traits


def build(
    plan: Plan,
    out: Path,
    judge: Optional[Judge] = None,
    notice: Optional[Notice] = None,
    progress: Optional[Progress] = None,
) -> Manifest:
    """Make a calibration set in the new folder ``out``, all of it or nothing.

    Pictures of a folder are copied byte by byte; frames are stored as PNG, so that they hold
    the very pixels that the pipeline sees. Memory does not grow with the length of the source.

    Args:
        plan: What set.
        out: Folder to make.
        judge: Tells how crowded a picture is; edges do where None.
        notice: Told what went wrong on the way.
        progress: Called with the number of pictures that were looked at.

    Raises:
        DatasetError: There are too few different pictures, or ``out`` cannot be written.
        ConfigError, SourceError: The source cannot be opened.
    """
    _check(plan, out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=str(out.parent)) as name:
            work = Path(name)
            (work / "pool").mkdir()
            (work / "set").mkdir()
            manifest = _make(plan, work, judge, notice or _quiet, progress or _quiet)
            (work / "set").replace(out)
    except OSError as error:
        raise DatasetError(f"cannot write the calibration set {out}: {error}") from error
    return manifest


def _check(plan: Plan, out: Path) -> None:
    if plan.count < FEWEST:
        raise DatasetError(
            f"a calibration set of {plan.count} pictures is too small: ask for {FEWEST} at least, "
            "500 is usual"
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DatasetError(f"{out} exists: give the name of a new folder, or remove it first")


def _make(
    plan: Plan, work: Path, judge: Optional[Judge], notice: Notice, progress: Progress
) -> Manifest:
    pool, seen = _look(plan, work / "pool", notice, progress)
    _check_enough(plan, pool, seen)
    crowding = _crowding(pool.items, judge)
    mosaics = round(plan.count * plan.zoom_out)
    spoiled = round((plan.count - mosaics) * plan.copies)
    wanted = min(plan.count - mosaics - spoiled, len(pool.items))
    chosen = choose(pool.points, _hardness(pool.items, crowding), wanted)
    entries = []
    for number, (index, why) in enumerate(chosen):
        kept = pool.items[index]
        file = work / "set" / f"{number:04d}{kept.file.suffix.lower()}"
        shutil.copyfile(str(kept.file), str(file))
        entries.append(_entry(file, kept.origin, why, kept.traits, crowding[index]))
    copies = round(len(entries) * plan.copies / (1 - plan.copies))
    entries += _copies(entries, copies, work / "set", plan.seed)
    entries += _mosaics(pool.items, mosaics, work / "set", len(entries), plan.seed)
    notes = (*_notes(plan, entries, len(chosen)), *count_notes(len(entries)))
    crowded_by = judge.name if judge else "edges"
    manifest = Manifest(mask_url(plan.source), seen, crowded_by, notes, tuple(entries))
    manifest.save(work / "set")
    return manifest


def _look(
    plan: Plan, folder: Path, notice: Notice, progress: Progress
) -> Tuple[DiversePool[_Kept], int]:
    """Look at all candidates; returns the pool, and how many they were."""
    source, is_folder = Path(plan.source), Path(plan.source).is_dir()
    candidates: Iterator[Candidate] = (
        folder_candidates(source, notice)
        if is_folder
        else stream_candidates(plan.source, plan.fps, plan.seconds, notice)
    )
    capacity = plan.count * (_FILES_KEPT if is_folder else _FRAMES_KEPT)
    pool: DiversePool[_Kept] = DiversePool(capacity, lambda kept: _forget(kept, folder))
    seen = 0
    for seen, candidate in enumerate(candidates, 1):
        look = look_at(candidate.image)
        pool.offer(look.embedding, partial(_keep, candidate, look, folder))
        progress(seen)
    return pool, seen


def _keep(candidate: Candidate, look: Look, folder: Path) -> _Kept:
    file = candidate.path
    if file is None:
        file = folder / f"{candidate.origin}.png"
        _write(file, candidate.image)
    return _Kept(candidate.origin, file, look.traits)


def _forget(kept: _Kept, folder: Path) -> None:
    if kept.file.parent == folder:
        kept.file.unlink()


def _check_enough(plan: Plan, pool: DiversePool[_Kept], seen: int) -> None:
    if len(pool.items) < FEWEST:
        raise DatasetError(
            f"{mask_url(plan.source)} gave {seen} pictures, of which only {len(pool.items)} differ "
            f"({FEWEST} are the least, 300 to 800 are wanted): give a longer clip, more pictures, "
            "or watch the camera longer (--seconds)"
        )


def _crowding(items: Sequence[_Kept], judge: Optional[Judge]) -> List[float]:
    if judge is None:
        return [item.traits.edges for item in items]
    return [judge.crowding(_read(item.file)) for item in items]


def _hardness(items: Sequence[_Kept], crowding: Sequence[float]) -> Dict[str, Float32Array]:
    """How dark, blurred and crowded each is: greater is harder."""
    return {
        "dark": np.array([-item.traits.luma for item in items], np.float32),
        "blurred": np.array([-item.traits.sharpness for item in items], np.float32),
        "crowded": np.array(crowding, np.float32),
    }


def choose(
    points: Float32Array, hardness: Dict[str, Float32Array], count: int
) -> List[Tuple[int, str]]:
    """Choose ``count`` pictures: some of the hardest of each kind, then the most different.

    Args:
        points: (n, d) float32, embeddings that all differ.
        hardness: Kind → (n,) float32, greater is harder.
        count: Pictures to choose, n at most.

    Returns:
        Indices, each with the kind it was chosen for, or ``diverse``.
    """
    chosen: List[Tuple[int, str]] = []
    share = max(1, round(count * _HARD_SHARE))
    for kind, values in hardness.items():
        taken = [index for index, _ in chosen]
        hardest = np.argsort(-values, kind="stable")[: max(share, round(len(points) * _HARD_PART))]
        found = _farthest_of(points, hardest, taken, share)
        chosen += [(index, kind) for index in found]
    chosen = chosen[:count]
    everything = np.arange(len(points))
    taken = [index for index, _ in chosen]
    rest = _farthest_of(points, everything, taken, count - len(chosen))
    return chosen + [(index, "diverse") for index in rest]


def _farthest_of(
    points: Float32Array, among: Int64Array, taken: Sequence[int], count: int
) -> List[int]:
    """The most different of the points ``among``, given those ``taken`` already."""
    near = nearest(points[among], points[taken]) if taken else None
    order, _ = farthest_first(points[among], count, near)
    return [int(index) for index in among[order]]


def _copies(entries: Sequence[Entry], count: int, folder: Path, seed: int) -> List[Entry]:
    """Spoiled copies of pictures that lie evenly among ``entries``, blurred and dark in turn."""
    made = []
    for number in range(count):
        kind, spoiled = (("blurred", spoil.blurred), ("dark", spoil.darkened))[number % 2]
        random = np.random.default_rng((seed, number))
        # One that is so already would show nothing new.
        suited = [entry for entry in entries if entry.why != kind]
        of = suited[number * len(suited) // count]
        image = spoiled(_read(folder / of.file), random)
        file = folder / f"{len(entries) + number:04d}.png"
        _write(file, image)
        made.append(_entry(file, of.file, f"{kind} copy", look_at(image).traits, of.crowding))
    return made


def _mosaics(
    items: Sequence[_Kept], count: int, folder: Path, first: int, seed: int
) -> List[Entry]:
    """Pictures drawn from all candidates, 9 or 16 in one; their files begin with ``first``."""
    made = []
    for number in range(count):
        random = np.random.default_rng((seed, number, 1))
        cells = _GRIDS[number % len(_GRIDS)] ** 2
        drawn = [items[i] for i in random.choice(len(items), cells, replace=len(items) < cells)]
        images = [_read(item.file) for item in drawn]
        side = max(_LEAST_SIDE, *images[0].shape[:2])
        image = spoil.zoomed_out(images, side)
        file = folder / f"{first + number:04d}.png"
        _write(file, image)
        look = look_at(image)
        origin = "; ".join(item.origin for item in drawn)
        made.append(_entry(file, origin, "zoomed out", look.traits, look.traits.edges))
    return made


def _notes(plan: Plan, entries: Sequence[Entry], chosen: int) -> List[str]:
    notes = []
    if len(entries) < plan.count:
        notes.append(
            f"the source holds only {chosen} pictures that differ: the set has {len(entries)} of "
            f"the {plan.count} asked for"
        )
    darkest = min((entry.luma for entry in entries[:chosen]), default=0.0)
    if darkest > _DARK_LUMA:
        notes.append(
            f"the source has no dark pictures (the darkest has a mean brightness of {darkest:.0f} "
            "of 255): if the camera works at night, add pictures from then"
        )
    return notes


def _entry(file: Path, origin: str, why: str, traits: Traits, crowding: float) -> Entry:
    return Entry(
        file=file.name,
        sha256=sha256(file.read_bytes()).hexdigest(),
        origin=origin,
        why=why,
        luma=round(traits.luma, 1),
        sharpness=round(traits.sharpness, 4),
        crowding=round(crowding, 4),
    )


def _write(file: Path, image: UInt8Array) -> None:
    ok, data = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not ok:
        raise DatasetError(f"a picture of {image.shape[1]}×{image.shape[0]} cannot be written")
    file.write_bytes(data.tobytes())


def _read(file: Path) -> UInt8Array:
    image = cv2.imread(str(file), cv2.IMREAD_COLOR)
    if image is None:
        raise DatasetError(f"{file} cannot be read again: was it removed meanwhile?")
    return image  # type: ignore[return-value]


def _quiet(_: object) -> None:
    """Nobody listens."""
