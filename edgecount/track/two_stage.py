"""The default tracker: motion only, two stages, no appearance.

Detections of high score are matched first, to all confirmed tracks; what is left of the
confirmed tracks may take a detection of low score (Zhang et al., "ByteTrack", ECCV 2022);
what is left of the high detections goes to tentative tracks, then founds new ones. Motion
is a Kalman filter per box axis in seconds and in units of the box, so that it behaves alike
at any frame rate and resolution.
"""

from typing import Tuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from edgecount.records import Detections, Float32Array, Int64Array, Tracks
from edgecount.track import _kalman
from edgecount.track._assignment import solve
from edgecount.track._association import COST_ONE, CostWeights, find_pairs
from edgecount.track._table import (
    CLASS,
    CONFIRMED,
    EVIDENCE,
    HIT_RATE,
    HITS,
    ID,
    KALMAN,
    SCORE,
    UNSEEN_US,
    Table,
)


class Options(BaseModel):
    """Options of the two-stage tracker. Sizes are in units of the box, times in seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    low_score: float = Field(0.1, ge=0, le=1, description="detections below are ignored")
    high_score: float = Field(0.5, ge=0, le=1, description="detections from here match first")
    birth_score: float = Field(0.6, ge=0, le=1, description="a track starts from this score")
    confirm_evidence: float = Field(
        1.8, gt=0, description="a track is confirmed when its scores sum up to this"
    )
    confirm_hits: int = Field(3, ge=1, description="... or when it was matched so often")
    max_age: float = Field(1.5, gt=0, description="a track unseen for longer dies")
    tentative_age: float = Field(0.2, ge=0, description="the same, before it is confirmed")
    low_age: float = Field(
        0.3, ge=0, description="a track unseen for longer takes no low-score detection"
    )
    coast: float = Field(
        0.2, ge=0, description="a confirmed, unseen track is still given out so long, score 0"
    )
    coast_rate: float = Field(
        0.5, ge=0, le=1, description="... if it was matched in this share of recent frames"
    )
    noise: float = Field(0.05, gt=0, description="standard deviation of a measured centre")
    size_noise: float = Field(0.08, gt=0, description="standard deviation of a measured size")
    acceleration: float = Field(
        0.15, gt=0, description="square root of the acceleration's density, body heights/s^1.5"
    )
    size_acceleration: float = Field(0.25, gt=0, description="the same for sizes, box heights")
    size_decay: float = Field(1.0, gt=0, description="growth fades with this time constant")
    speed: float = Field(0.6, gt=0, description="typical speed, body heights/s")
    size_speed: float = Field(0.2, gt=0, description="typical growth, box heights/s")
    head_unit: float = Field(
        5.0, ge=0, description="a body is 1 + this many heads high; heads are boxes near square"
    )
    gate: float = Field(2.5, gt=0, description="gate in standard deviations of the prediction")
    gate_margin: float = Field(0.6, ge=0, description="... plus this share of the box")
    min_height_ratio: float = Field(0.5, ge=0, le=1, description="least ratio of heights")
    buffer: float = Field(0.1, ge=0, description="boxes grow so much on each side for the IoU")
    overlap_weight: float = Field(0.6, ge=0, description="cost of no overlap")
    distance_weight: float = Field(0.2, ge=0, description="cost of a centre on the gate's rim")
    height_weight: float = Field(0.5, ge=0, description="cost of unlike heights")
    max_cost: float = Field(0.7, gt=0, le=1, description="dearer pairs are not matched: high")
    max_cost_low: float = Field(0.6, gt=0, le=1, description="the same, low scores")
    max_cost_tentative: float = Field(0.8, gt=0, le=1, description="the same, tentative tracks")


def create(options: Options) -> "TwoStageTracker":
    """Make a tracker for one camera."""
    return TwoStageTracker(options)


class _Seen:
    """The usable detections of a frame: (4, M) ``cx, cy, w, h``, scores and classes."""

    def __init__(self, detections: Detections, low_score: float) -> None:
        boxes = detections.boxes.T
        lead, tail = boxes[:2], boxes[2:]
        with np.errstate(invalid="ignore", over="ignore"):
            size = tail - lead
            state = np.concatenate(((lead + tail) * np.float32(0.5), size))
            usable = (size > 0).all(axis=0) & np.isfinite(state).all(axis=0)
            usable &= detections.scores >= np.float32(low_score)
        self.boxes: Float32Array = state[:, usable]
        self.scores: Float32Array = detections.scores[usable]
        self.classes = detections.classes[usable]


class TwoStageTracker:
    """See the module. Implements :class:`edgecount.track.base.Tracker`."""

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
        self._next_id = 1

    def reset(self) -> None:
        """Forget all tracks. Ids are not used again."""
        self._table.clear()

    def update(self, detections: Detections, dt: float) -> Tracks:
        """Advance by one frame; see :meth:`edgecount.track.base.Tracker.update`."""
        seen = _Seen(detections, self._options.low_score)
        dt = max(0.0, dt)
        ended = self._advance(dt)
        tracks, matched = self._match(seen)
        self._correct(tracks, matched, seen)
        self._found(matched, seen)
        return self._output(ended)

    def _advance(self, dt: float) -> Int64Array:
        """Predict all tracks; remove those unseen for too long and give their ids."""
        table, options = self._table, self._options
        waited = table.integers[UNSEEN_US] > 0
        table.integers[UNSEEN_US] += round(dt * 1e6)
        unseen = table.integers[UNSEEN_US]
        tentative = table.integers[CONFIRMED] == 0
        dead = (unseen > options.max_age * 1e6) | (
            tentative & waited & (unseen > options.tentative_age * 1e6)
        )
        ended: Int64Array = table.integers[ID, dead]
        if len(ended):
            table.keep(~dead)
        state = table.reals[KALMAN]
        _kalman.predict(state, dt, self._acceleration(state[2], state[3]), options.size_decay)
        np.maximum(state[2:4], np.float32(1), out=state[2:4])
        return ended

    def _match(self, seen: _Seen) -> Tuple[Int64Array, Int64Array]:
        """Columns of matched tracks, and the index of each one's detection."""
        table, options = self._table, self._options
        state = table.reals[KALMAN]
        margin = np.float32(options.gate_margin) * state[2:4]
        radii = np.float32(options.gate) * np.sqrt(state[8:10]) + margin
        pairs = find_pairs(state[:4], radii, seen.boxes, self._weights)
        confirmed = table.integers[CONFIRMED] != 0
        fresh = confirmed & (table.integers[UNSEEN_US] <= options.low_age * 1e6)
        high = seen.scores >= np.float32(options.high_score)
        stages = (
            (confirmed, high, options.max_cost),
            (fresh, ~high, options.max_cost_low),
            (~confirmed, high, options.max_cost_tentative),
        )
        free_tracks = np.ones(len(confirmed), np.bool_)
        free_seen = np.ones(len(high), np.bool_)
        chosen = []
        for track_mask, seen_mask, max_cost in stages:
            limit = round(max_cost * COST_ONE)
            allowed = (track_mask & free_tracks)[pairs.tracks] & (seen_mask & free_seen)[pairs.seen]
            allowed &= pairs.costs < limit
            row, col = solve(
                pairs.tracks[allowed], pairs.seen[allowed], pairs.costs[allowed], limit
            )
            free_tracks[row], free_seen[col] = False, False
            chosen.append((row, col))
        return (
            np.concatenate([row for row, _ in chosen]),
            np.concatenate([col for _, col in chosen]),
        )

    def _correct(self, tracks: Int64Array, matched: Int64Array, seen: _Seen) -> None:
        table, options = self._table, self._options
        reals, integers = table.reals, table.integers
        boxes, scores = seen.boxes[:, matched], seen.scores[matched]
        reals[KALMAN, tracks] = _kalman.update(reals[KALMAN, tracks], boxes, self._noise(boxes))
        reals[SCORE, tracks] = scores
        reals[EVIDENCE, tracks] += scores
        reals[HIT_RATE] *= np.float32(0.8)
        reals[HIT_RATE, tracks] += np.float32(0.2)
        integers[UNSEEN_US, tracks] = 0
        integers[HITS, tracks] += 1
        integers[CLASS, tracks] = seen.classes[matched]
        integers[CONFIRMED, tracks] |= (integers[HITS, tracks] >= options.confirm_hits) | (
            reals[EVIDENCE, tracks] >= np.float32(options.confirm_evidence)
        )

    def _found(self, matched: Int64Array, seen: _Seen) -> None:
        """Start a track from each good detection that no track took."""
        options = self._options
        good = seen.scores >= np.float32(options.birth_score)
        good[matched] = False
        born = np.nonzero(good)[0]
        if not len(born):
            return
        reals, integers = self._table.append(len(born))
        boxes = seen.boxes[:, born]
        reals[:4] = boxes
        reals[8:12] = self._noise(boxes)
        speed = np.float32(options.speed) * self._unit(boxes[2], boxes[3])
        size_speed = np.float32(options.size_speed) * boxes[3]
        reals[16:18] = speed * speed
        reals[18:20] = size_speed * size_speed
        reals[EVIDENCE] = reals[SCORE] = seen.scores[born]
        integers[ID] = np.arange(self._next_id, self._next_id + len(born))
        integers[HITS] = 1
        integers[CLASS] = seen.classes[born]
        integers[CONFIRMED] = (options.confirm_hits <= 1) | (
            reals[EVIDENCE] >= np.float32(options.confirm_evidence)
        )
        self._next_id += len(born)

    def _output(self, ended: Int64Array) -> Tracks:
        options, integers, reals = self._options, self._table.integers, self._table.reals
        unseen = integers[UNSEEN_US]
        shown = unseen == 0
        coasting = (
            (integers[CONFIRMED] != 0)
            & (unseen <= options.coast * 1e6)
            & (reals[HIT_RATE] >= np.float32(options.coast_rate))
        )
        shown = shown | coasting
        integers = integers[:, shown]
        reals = reals[:, shown]
        half = reals[2:4] * np.float32(0.5)
        return Tracks(
            ids=integers[ID],
            boxes=np.concatenate((reals[:2] - half, reals[:2] + half)).T,
            scores=np.where(integers[UNSEEN_US] == 0, reals[SCORE], np.float32(0)),
            classes=integers[CLASS].astype(np.int32),
            confirmed=integers[CONFIRMED] != 0,
            ended=ended,
        )

    def _unit(self, width: Float32Array, height: Float32Array) -> Float32Array:
        """Estimate the height of the person's body in pixels: boxes near square are heads."""
        squareness = np.clip((width / height - np.float32(0.45)) / np.float32(0.3), 0, 1)
        one = np.float32(1)
        unit: Float32Array = height * (one + np.float32(self._options.head_unit) * squareness)
        return unit

    def _acceleration(self, width: Float32Array, height: Float32Array) -> Float32Array:
        move = np.float32(self._options.acceleration) * self._unit(width, height)
        grow = np.float32(self._options.size_acceleration) * height
        move, grow = move * move, grow * grow
        return np.stack((move, move, grow, grow))

    def _noise(self, boxes: Float32Array) -> Float32Array:
        centre = np.float32(self._options.noise) * boxes[2:]
        size = np.float32(self._options.size_noise) * boxes[2:]
        return np.concatenate((centre * centre, size * size))
