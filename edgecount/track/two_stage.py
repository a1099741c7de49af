"""The default tracker: motion only, two stages, no appearance.

Detections of high score are matched first, to all confirmed tracks; what is left of the
confirmed tracks may take a detection of low score (Zhang et al., "ByteTrack", ECCV 2022);
what is left of the high detections goes to tentative tracks, then founds new ones. Motion
is a Kalman filter per box axis in seconds and in units of the box, so that it behaves alike
at any frame rate and resolution.
"""

from typing import NamedTuple, Tuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from edgecount.records import BoolArray, Detections, Float32Array, Int64Array, Tracks
from edgecount.track import _kalman
from edgecount.track._assignment import solve
from edgecount.track._association import COST_ONE, CostWeights, Pairs, find_pairs
from edgecount.track._score_levels import ScoreLevels
from edgecount.track._table import (
    CLASS,
    CONFIRMED,
    EVIDENCE,
    HIT_RATE,
    ID,
    KALMAN,
    SCORE,
    UNSEEN_US,
    Table,
)

_NONE: Int64Array = np.zeros(0, np.int64)
_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)
_BODY_ASPECT, _ASPECT_SPAN = np.float32(0.45), np.float32(0.3)  # width / height: body, to head
_FAR = np.float32(1e6)  # pixels
LONGEST_STEP = 1e6  # seconds
_HIT_RATE_STEP = np.float32(0.2)
_LEAST_FOR_MEDIAN = 3
# Seconds between frames: up to the first a walker's head (0.2 m, at 1.3 m/s) overlaps itself.
_CLOSE, _APART = 0.15, 0.2
_EXPERIENCED = np.float32(10)  # evidence at which a track is no novice any more


class Options(BaseModel):
    """Options of the two-stage tracker. Lengths are in units of the box, times in seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    low: float = Field(0.1, ge=0, le=1, description="detections of a lower score are ignored")
    high: float = Field(
        0.35, ge=0, le=1, description="the detector's own threshold: from here a track may start"
    )
    high_share: float = Field(
        0.12, ge=0, lt=1, description="this share of matched scores is low: matched second"
    )
    birth_share: float = Field(0.25, ge=0, lt=1, description="... and this share starts no track")
    strong_share: float = Field(
        0.3, ge=0, lt=1, description="... and this share is weak evidence of a person"
    )
    confirm_evidence: float = Field(
        1.9, gt=0, description="a track is confirmed when its evidence sums up to this"
    )
    weak_evidence: float = Field(
        0.15, ge=0, le=1, description="evidence of a weak detection; that of a strong one is 1"
    )
    max_age: float = Field(1.8, gt=0, description="a track unseen for longer dies")
    tentative_age: float = Field(0.1, ge=0, description="the same before it is confirmed")
    low_age: float = Field(
        0.3, ge=0, description="a track unseen for longer takes no low detection"
    )
    coast: float = Field(
        0.2, ge=0, description="a confirmed, unseen track is given out at most so long, score 0"
    )
    coast_rate: float = Field(
        0.55, ge=0, le=1, description="... while it was matched in this share of recent frames"
    )
    noise: float = Field(0.055, gt=0, description="standard deviation of a measured centre")
    size_noise: float = Field(0.08, gt=0, description="standard deviation of a measured size")
    outlier: float = Field(
        4.0, gt=0, description="a centre further off than this (squared deviations) counts less"
    )
    acceleration: float = Field(
        0.15, gt=0, description="square root of the acceleration's density, body heights/s^1.5"
    )
    size_acceleration: float = Field(0.25, gt=0, description="the same for sizes, box heights")
    size_decay: float = Field(0.8, gt=0, description="growth fades with this time constant")
    speed: float = Field(0.6, gt=0, description="typical speed, body heights/s")
    top_speed: float = Field(
        3.0, gt=0, description="a fast run, body heights/s: so far a track seen once is looked for"
    )
    size_speed: float = Field(0.2, gt=0, description="typical growth, box heights/s")
    head_unit: float = Field(
        5.0, ge=0, description="a body is 1 + this many heads high; heads are boxes near square"
    )
    gate: float = Field(2.5, gt=0, description="gate in standard deviations of the prediction")
    gate_margin: float = Field(0.65, gt=0, description="... plus this share of the box")
    min_height_ratio: float = Field(0.5, ge=0, le=1, description="least ratio of heights")
    buffer: float = Field(0.1, ge=0, description="boxes grow so much on each side for the IoU")
    overlap_weight: float = Field(0.6, ge=0, description="cost of no overlap")
    distance_weight: float = Field(0.2, ge=0, description="cost of a centre on the gate's rim")
    height_weight: float = Field(0.5, ge=0, description="cost of unlike heights")
    novice_cost: float = Field(
        0.12, ge=0, description="cost of a track without evidence; with growing evidence it fades"
    )
    max_cost: float = Field(0.7, gt=0, le=1, description="dearer pairs are not matched: high")
    max_cost_apart: float = Field(
        0.85, gt=0, le=1, description="the same, high, when frames are 0.2 s apart or more"
    )
    max_cost_low: float = Field(0.6, gt=0, le=1, description="the same, low")
    max_cost_tentative: float = Field(0.95, gt=0, le=1, description="the same, tentative tracks")


def create(options: Options) -> "TwoStageTracker":
    """Make a tracker for one camera."""
    return TwoStageTracker(options)


class _Seen:
    """The usable detections of a frame: (4, M) ``cx, cy, w, h``, scores and classes.

    Those below the low score, smaller than a pixel, not finite or absurdly far out are none.
    """

    def __init__(self, detections: Detections, low: np.float32) -> None:
        corners = detections.boxes.T
        boxes: Float32Array = np.empty(corners.shape, np.float32)
        scores = detections.scores
        with np.errstate(invalid="ignore", over="ignore"):
            np.subtract(corners[2:], corners[:2], out=boxes[2:])
            np.add(corners[:2], _HALF * boxes[2:], out=boxes[:2])
            all_usable = _all_usable(boxes, scores, low)
        self.boxes, self.scores, self.classes = boxes, scores, detections.classes
        if not all_usable:
            usable = (boxes[2:] >= _ONE).all(axis=0) & (np.abs(boxes) < _FAR).all(axis=0)
            usable &= scores >= low
            self.boxes, self.scores = boxes[:, usable], scores[usable]
            self.classes = detections.classes[usable]


def _all_usable(boxes: Float32Array, scores: Float32Array, low: np.float32) -> bool:
    """Whether every detection is one; false for an empty frame. NaN fails each comparison."""
    return (
        len(scores) > 0
        and bool(scores.min() >= low)
        and bool(boxes[2:].min() >= _ONE)
        and bool(boxes.max() < _FAR)
        and bool(boxes.min() > -_FAR)
    )


class TwoStageTracker:
    """Implements :class:`edgecount.track.base.Tracker`; ``docs/tracker.md`` specifies it."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._weights = CostWeights(
            options.overlap_weight,
            options.distance_weight,
            options.height_weight,
            options.buffer,
            options.min_height_ratio,
        )
        self._table = Table()
        self._scores = ScoreLevels(
            options.high, (options.high_share, options.birth_share, options.strong_share)
        )
        self._next_id = 1

    def reset(self) -> None:
        """Forget all tracks. Ids are not used again."""
        self._table.clear()

    def update(self, detections: Detections, dt: float) -> Tracks:
        """Advance by one frame; see :meth:`edgecount.track.base.Tracker.update`."""
        seen = _Seen(detections, np.float32(self._options.low))
        high, birth, strong = self._scores.levels()
        dt = min(max(0.0, dt), LONGEST_STEP)
        ended = self._advance(dt)
        columns, matched = self._match(seen, high, dt)
        evidence = np.where(
            seen.scores >= strong, np.float32(1), np.float32(self._options.weak_evidence)
        )
        if len(columns):
            self._correct(columns, matched, seen, evidence)
        good = seen.scores >= birth
        good[matched] = False
        born = good.nonzero()[0]
        if len(born):
            self._found(born, seen, evidence)
        return self._output(ended)

    def _advance(self, dt: float) -> Int64Array:
        """Predict all tracks; remove those unseen for too long and give their ids."""
        table, options = self._table, self._options
        unseen = table.integers[UNSEEN_US]
        missed = unseen > 0  # a track that was matched in the last frame lives at least to this one
        unseen += round(dt * 1e6)
        tentative = table.integers[CONFIRMED] == 0
        dead = tentative & missed & (unseen > microseconds(options.tentative_age))
        dead |= unseen > microseconds(options.max_age)
        ended: Int64Array = table.integers[ID, dead]
        if len(ended):
            table.keep(~dead)
        table.reals[HIT_RATE] *= _ONE - _HIT_RATE_STEP
        state = table.reals[KALMAN]
        _kalman.predict(state, dt, self._acceleration(state[2:4]), options.size_decay)
        np.maximum(state[2:4], _ONE, out=state[2:4])
        return ended

    def _match(self, seen: _Seen, high: np.float32, dt: float) -> Tuple[Int64Array, Int64Array]:
        """Columns of the matched tracks, and the index of each one's detection."""
        table, options = self._table, self._options
        if not len(table) or not len(seen.scores):
            return _NONE, _NONE
        state = table.reals[KALMAN]
        radii = np.float32(options.gate) * np.sqrt(state[8:10])
        radii += np.float32(options.gate_margin) * state[2:4]
        self._reach_for_newcomers(radii, dt)
        experience = np.minimum(table.reals[EVIDENCE] / _EXPERIENCED, _ONE)
        handicap = np.float32(options.novice_cost) * (_ONE - experience)
        pairs = find_pairs(state[:4], radii, handicap, seen.boxes, self._weights)
        confirmed = table.integers[CONFIRMED] != 0
        fresh = confirmed & (table.integers[UNSEEN_US] <= microseconds(options.low_age))
        is_high = seen.scores >= high
        free = _Free(np.ones(len(confirmed), np.bool_), np.ones(len(is_high), np.bool_))
        stages = (
            _take(pairs, confirmed, is_high, limit_high(options, dt), free),
            _take(pairs, fresh, ~is_high, cost_limit(options.max_cost_low), free),
            _take(pairs, ~confirmed, is_high, cost_limit(options.max_cost_tentative), free),
        )
        columns, matched = zip(*stages)
        return np.concatenate(columns), np.concatenate(matched)

    def _reach_for_newcomers(self, radii: Float32Array, dt: float) -> None:
        """Widen the gates of tracks that were seen once, in place.

        Nothing is known of their speed, so they may be as far as a runner gets. That is
        further than the gate reaches only where frames are far apart.
        """
        hit_rate = self._table.reals[HIT_RATE]
        if hit_rate.all():
            return
        newcomers = hit_rate == 0
        far = np.float32(self._options.top_speed * dt)
        way = far * self._body_height(self._table.reals[2:4, newcomers])
        radii[:, newcomers] = np.maximum(radii[:, newcomers], way)

    def _correct(
        self, columns: Int64Array, matched: Int64Array, seen: _Seen, evidence: Float32Array
    ) -> None:
        """Give matched tracks their measurement."""
        reals, integers = self._table.reals, self._table.integers
        boxes, scores = seen.boxes[:, matched], seen.scores[matched]
        noise = self._noise(boxes)
        block = reals[:, columns]
        _discount_outliers(block, boxes, noise, np.float32(self._options.outlier))
        _kalman.update(block[KALMAN], boxes, noise)
        block[SCORE] = scores
        block[EVIDENCE] += evidence[matched]
        block[HIT_RATE] += _HIT_RATE_STEP
        reals[:, columns] = block
        integers[UNSEEN_US, columns] = 0
        integers[CLASS, columns] = seen.classes[matched]
        self._scores.observe(scores[integers[CONFIRMED, columns] != 0])
        integers[CONFIRMED] |= reals[EVIDENCE] >= np.float32(self._options.confirm_evidence)

    def _found(self, born: Int64Array, seen: _Seen, evidence: Float32Array) -> None:
        """Start a track from each of the detections ``born``."""
        options = self._options
        reals, integers = self._table.append(len(born))
        boxes = seen.boxes[:, born]
        speed = np.float32(options.speed) * self._body_height(boxes[2:])
        size_speed = np.float32(options.size_speed) * boxes[3]
        reals[:4] = boxes
        reals[8:12] = self._noise(boxes)
        reals[16:18] = speed * speed
        reals[18:20] = size_speed * size_speed
        reals[SCORE] = seen.scores[born]
        reals[EVIDENCE] = evidence[born]
        integers[ID] = np.arange(self._next_id, self._next_id + len(born))
        integers[CLASS] = seen.classes[born]
        integers[CONFIRMED] = reals[EVIDENCE] >= np.float32(options.confirm_evidence)
        self._next_id += len(born)

    def _output(self, ended: Int64Array) -> Tracks:
        options, integers, reals = self._options, self._table.integers, self._table.reals
        unseen = integers[UNSEEN_US]
        shown = (integers[CONFIRMED] != 0) & (unseen <= microseconds(options.coast))
        shown &= reals[HIT_RATE] >= np.float32(options.coast_rate)
        shown |= unseen == 0
        if not shown.all():
            integers, reals = integers[:, shown], reals[:, shown]
        half = _HALF * reals[2:4]
        return Tracks(
            ids=integers[ID].copy(),
            boxes=np.concatenate((reals[:2] - half, reals[:2] + half)).T,
            scores=np.where(integers[UNSEEN_US] == 0, reals[SCORE], _ZERO),
            classes=integers[CLASS].astype(np.int32),
            confirmed=integers[CONFIRMED] != 0,
            ended=ended,
        )

    def _body_height(self, sizes: Float32Array) -> Float32Array:
        """Estimate how high the person's body is in pixels: boxes near square are heads."""
        squareness = (sizes[0] / sizes[1] - _BODY_ASPECT) / _ASPECT_SPAN
        squareness = np.minimum(np.maximum(squareness, _ZERO), _ONE)
        height: Float32Array = sizes[1] * (_ONE + np.float32(self._options.head_unit) * squareness)
        return height

    def _acceleration(self, sizes: Float32Array) -> Float32Array:
        """Spectral density of each axis' acceleration, (4, N)."""
        density: Float32Array = np.empty((4, sizes.shape[1]), np.float32)
        density[:2] = np.float32(self._options.acceleration) * self._body_height(sizes)
        density[2:] = np.float32(self._options.size_acceleration) * sizes[1]
        density *= density
        return density

    def _noise(self, boxes: Float32Array) -> Float32Array:
        """Variance of each axis' measurement, (4, N)."""
        noise: Float32Array = np.empty_like(boxes)
        np.multiply(np.float32(self._options.noise), boxes[2:], out=noise[:2])
        np.multiply(np.float32(self._options.size_noise), boxes[2:], out=noise[2:])
        noise *= noise
        return noise


class _Free(NamedTuple):
    """What is not matched yet."""

    tracks: BoolArray
    seen: BoolArray


def _take(
    pairs: Pairs, tracks: BoolArray, seen: BoolArray, limit: int, free: _Free
) -> Tuple[Int64Array, Int64Array]:
    """Match the given tracks and detections as far as they are free; note them as taken."""
    tracks, seen = tracks & free.tracks, seen & free.seen
    if not (tracks.any() and seen.any()):
        return _NONE, _NONE
    allowed = tracks[pairs.tracks] & seen[pairs.seen] & (pairs.costs < limit)
    columns, matched = solve(
        pairs.tracks[allowed], pairs.seen[allowed], pairs.costs[allowed], limit
    )
    free.tracks[columns], free.seen[matched] = False, False
    return columns, matched


def _discount_outliers(
    state: Float32Array, boxes: Float32Array, noise: Float32Array, limit: np.float32
) -> None:
    """Raise the noise of centres that lie further off than noise explains.

    What all tracks have in common is the camera's motion and no outlier, so their median
    is taken off first; with fewer than three tracks there is no telling.
    """
    count = boxes.shape[1]
    if count < _LEAST_FOR_MEDIAN:
        return
    off = boxes[:2] - state[:2]
    off -= np.sort(off, axis=1)[:, (count - 1) // 2, None]
    noise[:2] *= np.maximum(off * off / ((state[8:10] + noise[:2]) * limit), _ONE)


def cost_limit(max_cost: float) -> int:
    """Give a largest cost as an integer, in the unit of the pairs' costs."""
    return round(max_cost * COST_ONE)


def limit_high(options: Options, dt: float) -> int:
    """Give the limit for confirmed tracks and high scores, ``dt`` seconds after the last frame.

    The farther frames are apart, the less do one person's boxes overlap.
    """
    apart = min(max(0.0, (dt - _CLOSE) / (_APART - _CLOSE)), 1.0)
    rise = max(0.0, options.max_cost_apart - options.max_cost)
    return cost_limit(options.max_cost + rise * apart)


def microseconds(seconds: float) -> int:
    """Whole microseconds, in which ages are counted."""
    return round(seconds * 1e6)
