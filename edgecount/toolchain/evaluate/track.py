"""How well a tracker follows: HOTA, IDF1, MOTA and identity switches, and what it costs.

The metrics are TrackEval's (Luiten et al., "HOTA: A Higher Order Metric for Evaluating
Multi-Object Tracking", IJCV 2021) on MOTChallenge sequences: all people whose consider flag
is not 0 are true, and what the tracker gives out as confirmed is judged, frame by frame, as
it was given out.
"""

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Set, Tuple

import lap
import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from edgecount import discovery
from edgecount.config import mistakes
from edgecount.errors import ConfigError, DatasetError, MissingExtraError
from edgecount.records import Float32Array, Int64Array, Tracks
from edgecount.toolchain.evaluate import motchallenge, simulated_detections
from edgecount.toolchain.evaluate.motchallenge import Rows, SequenceInfo
from edgecount.toolchain.evaluate.simulated_detections import Simulation
from edgecount.track.base import Tracker

COMBINED = "COMBINED"
_MATCH_IOU = 0.5
_CONTINUITY = 1000.0  # as CLEAR does: a person keeps the id of the last match where it can

MakeTracker = Callable[[SequenceInfo], Tracker]
Float64Array = NDArray[np.float64]


@dataclass(frozen=True)
class Sample:
    """One sequence, ready to be tracked."""

    info: SequenceInfo
    truth: Rows
    detections: Rows


@dataclass(frozen=True)
class Scores:
    """What came out for one sequence, or for all.

    Attributes:
        hota: HOTA, percent.
        idf1: IDF1, percent.
        mota: MOTA, percent.
        id_switches: Identity switches (CLEAR).
        ids_per_person: Different ids that a person had, averaged over those ever found.
        us_per_frame: Mean time of ``Tracker.update``, microseconds.
        frames: Frames.
        people: True people.
        ids: Ids that were given out as confirmed.
        det_a: Detection accuracy, the part of HOTA that no tracker can mend, percent.
        ass_a: Association accuracy, the other part, percent.
        loc_a: Mean IoU of matched boxes, percent.
    """

    hota: float
    idf1: float
    mota: float
    id_switches: int
    ids_per_person: float
    us_per_frame: float
    frames: int
    people: int
    ids: int
    det_a: float
    ass_a: float
    loc_a: float


@dataclass(frozen=True)
class TrackReport:
    """Scores per sequence, and of all sequences together."""

    sequences: Dict[str, Scores]
    combined: Scores

    def as_dict(self) -> Dict[str, Any]:
        """Give the combined scores at the top level, those of each sequence below."""
        sequences = {name: _rounded(scores) for name, scores in self.sequences.items()}
        return {**_rounded(self.combined), "sequences": sequences}


def load(root: Path, simulation: Optional[Simulation] = None) -> List[Sample]:
    """Read all sequences under ``root``; with ``simulation``, detections are made from truth.

    Raises:
        DatasetError: Nothing is there, a file is malformed, or a sequence has no detections.
    """
    return [_load_one(path, simulation) for path in motchallenge.find_sequences(root)]


def subsample(sample: Sample, every: int) -> Sample:
    """Keep every ``every``-th frame: the same scene at a lower frame rate."""
    info = sample.info
    return Sample(
        SequenceInfo(
            info.name, info.fps / every, -(-info.length // every), info.width, info.height
        ),
        _every(sample.truth, every),
        _every(sample.detections, every),
    )


def named_tracker(name: str, options: Dict[str, str]) -> MakeTracker:
    """Give a factory for a tracker of ``edgecount/track`` with options as text.

    Raises:
        ConfigError: There is no such tracker or option, or a value does not fit.
    """
    module = discovery.load("edgecount.track", name, "tracker")
    known = module.Options.model_fields
    for key in options:
        if key not in known:
            raise ConfigError(
                f"tracker {name} has no option {key!r}{discovery.nearest(key, known)}"
            )
    try:
        checked = module.Options.model_validate(options)
    except ValidationError as error:
        raise ConfigError(f"tracker {name}: {'; '.join(mistakes(error))}") from None

    def make(_: SequenceInfo) -> Tracker:
        tracker: Tracker = module.create(checked)
        return tracker

    return make


def evaluate(samples: Sequence[Sample], make: MakeTracker) -> TrackReport:
    """Run a fresh tracker over each sequence and score it.

    Raises:
        MissingExtraError: TrackEval is not installed.
    """
    metrics = _metrics()
    raw: List[Dict[str, Any]] = [{} for _ in metrics]
    tallies: Dict[str, _Tally] = {}
    for sample in samples:
        output, seconds = run(sample, make(sample.info))
        name = sample.info.name
        data = _evaluation_data(sample, output)
        for results, metric in zip(raw, metrics):
            results[name] = metric.eval_sequence(data)
        tallies[name] = _Tally(
            seconds,
            sample.info.length,
            data["num_gt_ids"],
            data["num_tracker_ids"],
            _ids_of_people(data),
        )
    sequences = {
        name: _scores([results[name] for results in raw], tally) for name, tally in tallies.items()
    }
    together = [metric.combine_sequences(results) for results, metric in zip(raw, metrics)]
    return TrackReport(sequences, _scores(together, _added(list(tallies.values()))))


def run(sample: Sample, tracker: Tracker) -> Tuple[Rows, float]:
    """Track one sequence; give the confirmed tracks, and the seconds spent in the tracker."""
    frames = range(1, sample.info.length + 1)
    detections = [sample.detections.detections(frame) for frame in frames]
    dt = 1 / sample.info.fps
    started = time.perf_counter()
    outputs = [tracker.update(seen, dt) for seen in detections]
    seconds = time.perf_counter() - started
    return _rows(outputs), seconds


@dataclass(frozen=True)
class _Tally:
    seconds: float
    frames: int
    people: int
    ids: int
    ids_of_people: List[int]


def _added(tallies: List[_Tally]) -> _Tally:
    return _Tally(
        sum(t.seconds for t in tallies),
        sum(t.frames for t in tallies),
        sum(t.people for t in tallies),
        sum(t.ids for t in tallies),
        [count for t in tallies for count in t.ids_of_people],
    )


def _load_one(path: Path, simulation: Optional[Simulation]) -> Sample:
    info = replace(motchallenge.read_info(path), name=path.name)  # a folder's names differ
    truth = motchallenge.read_truth(path).considered()
    if simulation is not None:
        return Sample(info, truth, simulated_detections.simulate(truth, info, simulation))
    if not motchallenge.has_detections(path):
        raise DatasetError(
            f"{path} has no det.txt: add a detector's output, or make detections from the "
            "ground truth with --simulate jitter=0.05,drop=0.1,false=0.05,seed=0"
        )
    return Sample(info, truth, motchallenge.read_detections(path))


def _every(rows: Rows, every: int) -> Rows:
    keep = (rows.frames - 1) % every == 0
    frames = (rows.frames[keep] - 1) // every + 1
    return Rows(frames, rows.ids[keep], rows.boxes[keep], rows.scores[keep])


def _rows(outputs: Sequence[Tracks]) -> Rows:
    kept = [tracks.confirmed for tracks in outputs]
    counts = [int(keep.sum()) for keep in kept]
    return Rows(
        np.repeat(np.arange(1, len(outputs) + 1, dtype=np.int32), counts),
        np.concatenate([np.zeros(0, np.int64), *(t.ids[k] for t, k in zip(outputs, kept))]),
        np.concatenate(
            [np.zeros((0, 4), np.float32), *(t.boxes[k] for t, k in zip(outputs, kept))]
        ),
        np.concatenate([np.zeros(0, np.float32), *(t.scores[k] for t, k in zip(outputs, kept))]),
    )


def _metrics() -> Tuple[Any, Any, Any]:
    try:
        from trackeval import metrics
    except ImportError as error:
        raise MissingExtraError("trackeval", "eval") from error
    quiet = {"PRINT_CONFIG": False}
    return metrics.HOTA(), metrics.CLEAR(quiet), metrics.Identity(quiet)


def _evaluation_data(sample: Sample, output: Rows) -> Dict[str, Any]:
    """What TrackEval's metrics take: ids from 0 without gaps, and IoUs, frame by frame."""
    people, of_truth = np.unique(sample.truth.ids, return_inverse=True)
    ids, of_output = np.unique(output.ids, return_inverse=True)
    frames = range(1, sample.info.length + 1)
    true_spans = [sample.truth.span(frame) for frame in frames]
    spans = [output.span(frame) for frame in frames]
    return {
        "num_timesteps": sample.info.length,
        "num_gt_ids": len(people),
        "num_tracker_ids": len(ids),
        "num_gt_dets": len(sample.truth),
        "num_tracker_dets": len(output),
        "gt_ids": [of_truth[span] for span in true_spans],
        "tracker_ids": [of_output[span] for span in spans],
        "similarity_scores": [
            iou_matrix(sample.truth.boxes[a], output.boxes[b]) for a, b in zip(true_spans, spans)
        ],
    }


def iou_matrix(a: Float32Array, b: Float32Array) -> Float64Array:
    """IoU of each box of ``a`` (N, 4) with each of ``b`` (M, 4): (N, M) float64."""
    first, second = a.astype(np.float64)[:, None], b.astype(np.float64)[None]
    common = np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(
        first[..., :2], second[..., :2]
    )
    inter = common.clip(0).prod(axis=-1)
    areas = (first[..., 2:] - first[..., :2]).prod(-1) + (second[..., 2:] - second[..., :2]).prod(
        -1
    )
    iou: Float64Array = inter / np.maximum(areas - inter, np.finfo(np.float64).tiny)
    return iou


def _ids_of_people(data: Dict[str, Any]) -> List[int]:
    """How many ids each person had whom the tracker ever found."""
    newest: Dict[int, int] = {}
    had: Dict[int, Set[int]] = {}
    for people, ids, iou in zip(data["gt_ids"], data["tracker_ids"], data["similarity_scores"]):
        for person, id_ in _matches(people, ids, iou, newest):
            newest[person] = id_
            had.setdefault(person, set()).add(id_)
    return [len(ids) for ids in had.values()]


def _matches(
    people: Int64Array, ids: Int64Array, iou: Float64Array, newest: Dict[int, int]
) -> List[Tuple[int, int]]:
    if not iou.size:
        return []
    kept = np.array([newest.get(person, -1) for person in people.tolist()])
    gain = np.where(iou >= _MATCH_IOU, iou + _CONTINUITY * (kept[:, None] == ids[None]), 0.0)
    _, column, _ = lap.lapjv(-gain, extend_cost=True)
    return [
        (int(people[row]), int(ids[at]))
        for row, at in enumerate(column.tolist())
        if at >= 0 and gain[row, at] > 0
    ]


def _scores(results: List[Dict[str, Any]], tally: _Tally) -> Scores:
    hota, clear, identity = results
    found = tally.ids_of_people
    return Scores(
        hota=100 * float(np.mean(hota["HOTA"])),
        idf1=100 * float(identity["IDF1"]),
        mota=100 * float(clear["MOTA"]),
        id_switches=int(clear["IDSW"]),
        ids_per_person=sum(found) / len(found) if found else 0.0,
        us_per_frame=1e6 * tally.seconds / max(tally.frames, 1),
        frames=tally.frames,
        people=tally.people,
        ids=tally.ids,
        det_a=100 * float(np.mean(hota["DetA"])),
        ass_a=100 * float(np.mean(hota["AssA"])),
        loc_a=100 * float(np.mean(hota["LocA"])),
    )


def _rounded(scores: Scores) -> Dict[str, Any]:
    return {k: round(v, 3) if isinstance(v, float) else v for k, v in asdict(scores).items()}
