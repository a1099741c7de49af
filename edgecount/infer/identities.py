"""Keep people's ids when one tracker takes over from another between two frames."""

from typing import Dict, List, NamedTuple, Optional, Set, Tuple

import numpy as np

from edgecount.records import Float32Array, Tracks

# A box moves by a small part of its size from one frame to the next; heads of neighbours
# hardly overlap.
LEAST_IOU = 0.3
# Who is not seen again for so long after the change is gone, as after a track's usual life.
_PATIENCE_S = 1.0


class Seen(NamedTuple):
    """A track as it was last seen.

    Attributes:
        box: (4,) x1, y1, x2, y2 in pixels.
        label: Its class.
        confirmed: Whether it was confirmed.
        time: Stream time, seconds.
        speed: (4,) what is added to the box in a second, pixels.
    """

    box: Float32Array
    label: int
    confirmed: bool
    time: float
    speed: Float32Array

    def at(self, time: float) -> Float32Array:
        """Where the box is at ``time`` if it goes on as it went, a second ahead at most."""
        moved: Float32Array = self.box + self.speed * min(max(time - self.time, 0.0), _PATIENCE_S)
        return moved


class Alive:
    """One camera's tracks that have not ended, whether the last frame showed them or not."""

    def __init__(self) -> None:
        self.tracks: Dict[int, Seen] = {}
        self.next_id = 1

    def update(self, tracks: Tracks, time: float = 0.0) -> None:
        """Take a frame's tracks at stream time ``time``, seconds."""
        numbers = tracks.ids.tolist()
        labels, confirmed = tracks.classes.tolist(), tracks.confirmed.tolist()
        for number, box, label, sure in zip(numbers, tracks.boxes, labels, confirmed):
            speed = _speed(self.tracks.get(number), box, time)
            self.tracks[number] = Seen(box, label, sure, time, speed)
        for number in tracks.ended.tolist():
            self.tracks.pop(number, None)
        self.next_id = max(self.next_id, max(numbers, default=0) + 1)


class Identities:
    """Translates one camera's tracks of a new tracker into the ids in use.

    Within the first second each new track that overlaps one of the old tracker's last boxes,
    or where that would be by now (same class, best overlap first), goes on under its id, and
    is confirmed if it was. Others get ids that were never used. Old tracks that are not found
    again end then. The new tracker itself learns speeds anew.
    """

    def __init__(self, alive: Alive) -> None:
        """Begin with the tracks that the old tracker left alive, under the ids in use."""
        self._next_id = alive.next_id
        self._ids: Dict[int, int] = {}
        self._confirmed: Set[int] = set()
        self._began: Optional[float] = None
        self._orphans = dict(alive.tracks)

    def translate(self, tracks: Tracks, time: float) -> Tracks:
        """The tracks of a frame at stream time ``time`` under the ids in use, by rising id."""
        self._began = time if self._began is None else self._began
        self._adopt(tracks, time)
        for new in tracks.ids.tolist():
            if new not in self._ids:
                self._ids[new] = self._next_id
                self._next_id += 1
        ids = np.array([self._ids[new] for new in tracks.ids.tolist()], np.int64)
        confirmed = tracks.confirmed | np.isin(ids, list(self._confirmed))
        ended = self._ended(tracks, time)
        order = np.argsort(ids)
        return Tracks(
            ids[order],
            tracks.boxes[order],
            tracks.scores[order],
            tracks.classes[order],
            confirmed[order],
            np.array(ended, np.int64),
        )

    def _adopt(self, tracks: Tracks, time: float) -> None:
        """Give new tracks the ids of the orphans that they overlap."""
        fresh = [i for i, new in enumerate(tracks.ids.tolist()) if new not in self._ids]
        if not self._orphans or not fresh:
            return
        for row, old in self._pairs(tracks, fresh, time):
            new = int(tracks.ids[row])
            if new in self._ids or old not in self._orphans:
                continue
            if self._orphans.pop(old).confirmed:
                self._confirmed.add(old)
            self._ids[new] = old

    def _pairs(self, tracks: Tracks, rows: List[int], time: float) -> List[Tuple[int, int]]:
        """Rows and orphans that may be the same, best overlap first."""
        olds = sorted(self._orphans)
        seen = [self._orphans[o] for o in olds]
        boxes = tracks.boxes[rows]
        overlap = np.maximum(
            _iou(boxes, np.stack([s.box for s in seen])),
            _iou(boxes, np.stack([s.at(time) for s in seen])),
        )
        labels = np.array([s.label for s in seen])
        overlap[tracks.classes[rows][:, None] != labels] = 0.0
        found = np.argwhere(overlap >= LEAST_IOU)
        best_first = np.argsort(-overlap[tuple(found.T)], kind="stable")
        return [(rows[i], olds[j]) for i, j in found[best_first].tolist()]

    def _ended(self, tracks: Tracks, time: float) -> List[int]:
        ended = [self._ids.pop(new) for new in tracks.ended.tolist() if new in self._ids]
        if self._began is not None and time - self._began >= _PATIENCE_S:
            ended += list(self._orphans)
            self._orphans.clear()
        self._confirmed.difference_update(ended)
        return sorted(ended)


def _speed(before: Optional[Seen], box: Float32Array, time: float) -> Float32Array:
    """Pixels per second since the track was seen before; none where that is not known."""
    if before is None:
        return np.zeros(4, np.float32)
    if time <= before.time:
        return before.speed
    centre = (box[:2] + box[2:] - before.box[:2] - before.box[2:]) / 2
    speed: Float32Array = np.tile(centre / np.float32(time - before.time), 2)
    return speed


def _iou(a: Float32Array, b: Float32Array) -> Float32Array:
    """(N, M) intersection over union of boxes (N, 4) and (M, 4)."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = np.prod(np.maximum(high - low, 0.0), axis=2)
    areas = [np.prod(np.maximum(x[:, 2:] - x[:, :2], 0.0), axis=1) for x in (a, b)]
    union = areas[0][:, None] + areas[1][None, :] - common
    overlap: Float32Array = (common / np.maximum(union, 1e-9)).astype(np.float32)
    return overlap
