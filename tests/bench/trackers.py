#!/usr/bin/env python3
"""Trackers side by side on the same detections, with the same metrics.

    trackers.py --mot15 DIR --ht21 DIR [--only NAME …] [--tuned] [--speed] [--curves PNG]

Prints one Markdown table per question: accuracy at defaults (and, with --tuned, with the
best of a small grid per peer, chosen by HOTA + IDF1 on MOT15), time per frame (--speed), and
how accuracy falls with frame rate, recall and jitter (--curves, also drawn). Peers that are
not installed are named and left out. What they give out is judged as they give it out.
"""

import argparse
import importlib
import itertools
import platform
import statistics
import sys
import time
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Callable, ClassVar, Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np

from edgecount.records import Detections, Tracks
from edgecount.toolchain.evaluate import simulated_detections, track
from edgecount.toolchain.evaluate.motchallenge import SequenceInfo
from edgecount.toolchain.evaluate.simulated_detections import Simulation
from edgecount.toolchain.evaluate.track import Sample
from edgecount.track import two_stage

NO_IDS = np.zeros(0, np.int64)
Options = Dict[str, Any]
Grid = Dict[str, List[Any]]


def as_tracks(ids: Any, boxes: Any) -> Tracks:
    """Tracks as a peer gives them out, by rising id; all count as confirmed."""
    ids = np.asarray(ids, np.int64).reshape(-1)
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    order = np.argsort(ids, kind="stable")
    count = len(ids)
    return Tracks(
        ids[order],
        boxes[order],
        np.ones(count, np.float32),
        np.zeros(count, np.int32),
        np.ones(count, np.bool_),
        NO_IDS,
    )


class SupervisionByteTrack:
    """supervision's ByteTrack."""

    grid: ClassVar[Grid] = {
        "track_activation_threshold": [0.25, 0.8],
        "minimum_consecutive_frames": [1, 3],
    }

    def __init__(self, info: SequenceInfo, options: Options) -> None:
        self._sv = importlib.import_module("supervision")
        self._engine = self._sv.ByteTrack(frame_rate=info.fps, **options)

    def update(self, seen: Detections, dt: float) -> Tracks:
        given = self._sv.Detections(
            xyxy=seen.boxes, confidence=seen.scores, class_id=seen.classes.astype(int)
        )
        out = self._engine.update_with_detections(given)
        return as_tracks(out.tracker_id, out.xyxy)

    def reset(self) -> None:
        self._engine.reset()


class Roboflow:
    """A tracker of roboflow/trackers."""

    kind: ClassVar[str] = ""

    def __init__(self, info: SequenceInfo, options: Options) -> None:
        self._sv = importlib.import_module("supervision")
        engine = getattr(importlib.import_module("trackers"), self.kind)
        self._engine = engine(frame_rate=info.fps, **options)

    def update(self, seen: Detections, dt: float) -> Tracks:
        given = self._sv.Detections(
            xyxy=seen.boxes, confidence=seen.scores, class_id=seen.classes.astype(int)
        )
        out = self._engine.update(given)
        known = out.tracker_id >= 0 if out.tracker_id is not None else np.zeros(0, bool)
        return as_tracks(out.tracker_id[known], out.xyxy[known]) if known.any() else Tracks.empty()

    def reset(self) -> None:
        self._engine.reset()


class RoboflowByteTrack(Roboflow):
    kind = "ByteTrackTracker"
    grid: ClassVar[Grid] = {
        "track_activation_threshold": [0.7, 0.9],
        "high_conf_det_threshold": [0.6, 0.8],
    }


class RoboflowOCSort(Roboflow):
    kind = "OCSORTTracker"
    grid: ClassVar[Grid] = {
        "high_conf_det_threshold": [0.4, 0.8],
        "minimum_iou_threshold": [0.1, 0.3],
    }


class RoboflowSort(Roboflow):
    kind = "SORTTracker"
    grid: ClassVar[Grid] = {
        "track_activation_threshold": [0.6, 0.9],
        "minimum_iou_threshold": [0.1, 0.3],
    }


class Norfair:
    """norfair with boxes as two points, IoU distance."""

    grid: ClassVar[Grid] = {
        "distance_threshold": [0.7, 0.85],
        "hit_counter_max": [5, 15],
        "score": [0.5, 0.8],
    }

    def __init__(self, info: SequenceInfo, options: Options) -> None:
        self._norfair = importlib.import_module("norfair")
        options = {"distance_threshold": 0.75, "score": 0.0, **options}
        self._score = options.pop("score")
        self._engine = self._norfair.Tracker(distance_function="iou", **options)

    def update(self, seen: Detections, dt: float) -> Tracks:
        make = self._norfair.Detection
        given = [
            make(points=box.reshape(2, 2).astype(float), scores=np.array([score, score]))
            for box, score in zip(seen.boxes, seen.scores)
            if score >= self._score
        ]
        out = self._engine.update(detections=given)
        return as_tracks([o.id for o in out], [o.estimate.reshape(4) for o in out])

    def reset(self) -> None:
        raise NotImplementedError


class BoxMot:
    """A tracker of boxmot; it wants a picture, of which it uses the size only."""

    kind: ClassVar[str] = ""

    def __init__(self, info: SequenceInfo, options: Options) -> None:
        boxmot = importlib.import_module("boxmot")
        self._engine = getattr(boxmot, self.kind)(**options)
        self._picture = np.zeros((info.height or 1080, info.width or 1920, 3), np.uint8)

    def update(self, seen: Detections, dt: float) -> Tracks:
        given = np.hstack((seen.boxes, seen.scores[:, None], np.zeros((len(seen), 1), np.float32)))
        out = np.asarray(self._engine.update(given, self._picture))
        return as_tracks(out[:, 4], out[:, :4]) if len(out) else Tracks.empty()

    def reset(self) -> None:
        self._engine.reset()


class BoxMotByteTrack(BoxMot):
    kind = "ByteTrack"
    grid: ClassVar[Grid] = {
        "track_thresh": [0.45, 0.7, 0.9],
        "match_thresh": [0.8, 0.9],
        "track_buffer": [25, 60],
    }


class BoxMotOcSort(BoxMot):
    kind = "OcSort"
    grid: ClassVar[Grid] = {
        "det_thresh": [0.2, 0.6, 0.9],
        "asso_threshold": [0.2, 0.3],
        "max_age": [30, 60],
    }


def ours(info: SequenceInfo, options: Options) -> Any:
    return two_stage.create(two_stage.Options(**options))


@dataclass(frozen=True)
class Peer:
    package: str
    make: Callable[[SequenceInfo, Options], Any]

    @property
    def grid(self) -> Dict[str, List[Any]]:
        return getattr(self.make, "grid", {})


PEERS = {
    "edgecount two_stage": Peer("edgecount", ours),
    "supervision ByteTrack": Peer("supervision", SupervisionByteTrack),
    "roboflow ByteTrack": Peer("trackers", RoboflowByteTrack),
    "roboflow OC-SORT": Peer("trackers", RoboflowOCSort),
    "roboflow SORT": Peer("trackers", RoboflowSort),
    "norfair": Peer("norfair", Norfair),
    "boxmot ByteTrack": Peer("boxmot", BoxMotByteTrack),
    "boxmot OC-SORT": Peer("boxmot", BoxMotOcSort),
}


def version(package: str) -> Optional[str]:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "this one" if package == "edgecount" else None


def result(samples: Sequence[Sample], peer: Peer, options: Options) -> track.Scores:
    return track.evaluate(samples, lambda info: peer.make(info, dict(options))).combined


def row(name: str, scores: Sequence[track.Scores]) -> str:
    cells = [
        f"{s.hota:.1f} / {s.idf1:.1f} / {s.mota:.1f} / {s.id_switches} / {s.ids_per_person:.2f}"
        for s in scores
    ]
    return f"| {name} | {' | '.join(cells)} |"


def variants(peer: Peer) -> Iterator[Options]:
    names = list(peer.grid)
    for values in itertools.product(*peer.grid.values()):
        yield dict(zip(names, values))


def accuracy(peers: Dict[str, Peer], data: Dict[str, List[Sample]], tuned: bool) -> None:
    print(f"| tracker | {' | '.join(data)} |\n|---|{'---|' * len(data)}")
    for name, peer in peers.items():
        print(row(name, [result(s, peer, {}) for s in data.values()]), flush=True)
    if not tuned:
        return
    first = next(iter(data.values()))
    for name, peer in peers.items():
        if not peer.grid:
            continue
        scored = [(result(first, peer, options), options) for options in variants(peer)]
        best = max(scored, key=lambda pair: pair[0].hota + pair[0].idf1)[1]
        others = [result(s, peer, best) for s in data.values()]
        print(row(f"{name}, tuned: {best}", others), flush=True)


def moving_heads(count: int, frames: int = 160) -> List[Detections]:
    """Heads that walk over a full-HD picture; 10 % of them are not seen."""
    random = np.random.default_rng(0)
    at, speed = random.random((count, 2)) * (1900, 1000), random.normal(0, 60, (count, 2))
    size = random.uniform(20, 40, count)
    scene = []
    for _ in range(frames):
        at = (at + speed / 25) % (1900, 1000)
        seen = random.random(count) > 0.1
        half = size[seen, None] / 2 * (1 + random.normal(0, 0.05, (int(seen.sum()), 1)))
        centre = at[seen] + random.normal(0, 0.05, (int(seen.sum()), 2)) * size[seen, None]
        scores = np.sort(random.uniform(0.4, 1, len(half)))[::-1]
        boxes = np.hstack((centre - half, centre + half))
        scene.append(
            Detections(
                boxes.astype(np.float32), scores.astype(np.float32), np.zeros(len(half), np.int32)
            )
        )
    return scene


def speed(peers: Dict[str, Peer], counts: Sequence[int]) -> None:
    """Median milliseconds per frame; the trackers take turns, frame by frame."""
    info = SequenceInfo("speed", 25.0, 160, 1920, 1080)
    print(
        f"| tracker | {' | '.join(f'{n} objects' for n in counts)} |\n|---|{'---|' * len(counts)}"
    )
    medians: Dict[str, List[str]] = {name: [] for name in peers}
    for count in counts:
        engines = {name: peer.make(info, {}) for name, peer in peers.items()}
        times: Dict[str, List[float]] = {name: [] for name in peers}
        for seen in moving_heads(count):
            for name, engine in engines.items():
                started = time.perf_counter()
                engine.update(seen, 0.04)
                times[name].append(time.perf_counter() - started)
        for name in peers:
            medians[name].append(f"{1e3 * statistics.median(times[name][30:]):.2f}")
    for name, cells in medians.items():
        print(f"| {name} | {' | '.join(cells)} |")


Curve = Tuple[str, List[str], Callable[[str], List[Sample]]]


def curves(peers: Dict[str, Peer], root: Path, png: Path) -> None:
    """How HOTA and IDF1 fall on HT21-01 with frame rate, recall and jitter."""
    base = Simulation()

    def at(every: int = 1, **changes: float) -> List[Sample]:
        how = replace(base, **changes)  # type: ignore[arg-type]
        return [track.subsample(s, every) for s in track.load(root, how)]

    rate = track.load(root, base)[0].info.fps
    axes: List[Curve] = [
        (
            "frames per second",
            [f"{rate / k:g}" for k in (1, 2, 3, 5)],
            lambda x: at(round(rate / float(x))),
        ),
        ("recall, %", ["100", "90", "80", "70", "60"], lambda x: at(drop=1 - float(x) / 100)),
        ("jitter, % of the box", ["0", "5", "10", "15"], lambda x: at(jitter=float(x) / 100)),
    ]
    found: Dict[str, Dict[str, List[track.Scores]]] = {}
    for label, values, make in axes:
        data = [make(value) for value in values]
        found[label] = {n: [result(s, p, {}) for s in data] for n, p in peers.items()}
        print(f"\n| HOTA / IDF1 at {label} | {' | '.join(values)} |\n|---|{'---|' * len(values)}")
        for name, scores in found[label].items():
            print(f"| {name} | {' | '.join(f'{s.hota:.1f} / {s.idf1:.1f}' for s in scores)} |")
    draw(found, {label: values for label, values, _ in axes}, png)


def draw(
    found: Dict[str, Dict[str, List[track.Scores]]], values: Dict[str, List[str]], png: Path
) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(found), figsize=(4 * len(found), 3.6), sharey=True)
    for axis, (label, by_name) in zip(axes, found.items()):
        for name, scores in by_name.items():
            ours_too = name.startswith("edgecount")
            axis.plot(
                [float(v) for v in values[label]],
                [s.hota for s in scores],
                marker="o",
                markersize=3.5,
                linewidth=2.2 if ours_too else 1.2,
                color="black" if ours_too else None,
                label=name,
            )
        axis.set_xlabel(label)
        axis.grid(alpha=0.3)
        if not label.startswith("jitter"):
            axis.invert_xaxis()
    axes[0].set_ylabel("HOTA")
    axes[0].legend(fontsize=7)
    figure.suptitle("HT21-01, detections simulated from ground truth", fontsize=10)
    figure.tight_layout()
    figure.savefig(png, dpi=110)


def main() -> None:
    here = str(Path(__file__).resolve().parent)
    sys.path[:] = [p for p in sys.path if p != here]  # this file would hide the package trackers
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mot15", type=Path)
    parser.add_argument("--ht21", type=Path)
    parser.add_argument("--only", nargs="*", default=list(PEERS))
    parser.add_argument("--tuned", action="store_true")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--curves", type=Path, metavar="PNG")
    given = parser.parse_args()
    peers = {name: PEERS[name] for name in given.only if version(PEERS[name].package)}
    versions = {p.package: version(p.package) for p in PEERS.values()}
    print(f"{platform.platform()}, Python {platform.python_version()}, {versions}\n")
    data = {}
    if given.mot15:
        data["MOT15"] = track.load(given.mot15)
    if given.ht21:
        data["HT21, simulated"] = track.load(given.ht21, simulated_detections.Simulation())
    if data and not (given.speed or given.curves):
        accuracy(peers, data, given.tuned)
    if given.speed:
        speed(peers, (10, 50, 200, 500))
    if given.curves:
        curves(peers, given.ht21, given.curves)


if __name__ == "__main__":
    main()
