"""Detections made from ground truth, for sequences that come without a detector's output."""

from dataclasses import dataclass, fields

import numpy as np

from edgecount.errors import ConfigError
from edgecount.toolchain.evaluate.motchallenge import Rows, SequenceInfo

_UNKNOWN_PICTURE = (1920, 1080)


@dataclass(frozen=True)
class Simulation:
    """A detector that errs in a known way.

    Attributes:
        jitter: Standard deviation of a box's centre (in its width and height) and of its
            width and height (in themselves).
        drop: Share of true boxes that are not detected, independently of each other.
        false: False boxes per true box: the size of the true one, anywhere in the picture.
        seed: Seed of all of this.
        low: Scores are uniform between this ...
        high: ... and this, for true and false boxes alike: they tell nothing.
    """

    jitter: float = 0.05
    drop: float = 0.1
    false: float = 0.05
    seed: int = 0
    low: float = 0.4
    high: float = 1.0


def parse(text: str) -> Simulation:
    """Read ``jitter=0.05,drop=0.1,false=0.05,seed=0``; what is not named has its default.

    Raises:
        ConfigError: An unknown name, or a value that is no number or out of range.
    """
    names = [field.name for field in fields(Simulation)]
    values = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.strip().partition("=")
        try:
            values[name] = int(value) if name == "seed" else float(value)
        except ValueError:
            raise ConfigError(
                f"simulated detections: {part.strip()!r} is not NAME=NUMBER"
            ) from None
        if name not in names:
            raise ConfigError(f"simulated detections: no {name!r}; there is {', '.join(names)}")
        if not 0 <= values[name] < (np.inf if name == "seed" else 1.0000001):
            raise ConfigError(f"simulated detections: {name} must lie in 0..1, not {value}")
    return Simulation(**values)  # type: ignore[arg-type]


def simulate(truth: Rows, info: SequenceInfo, how: Simulation) -> Rows:
    """Make detections from ground truth; the same seed gives the same detections."""
    random = np.random.default_rng(how.seed)
    size = truth.boxes[:, 2:] - truth.boxes[:, :2]
    centre = (truth.boxes[:, 2:] + truth.boxes[:, :2]) / 2
    seen = random.random(len(truth)) >= how.drop
    centre = centre + random.normal(0, how.jitter, size.shape) * size
    half = size * (1 + random.normal(0, how.jitter, size.shape)) / 2
    boxes = np.hstack((centre - half, centre + half))[seen]

    false = random.random(len(truth)) < how.false
    room = np.array((info.width, info.height) if info.width else _UNKNOWN_PICTURE) - size[false]
    corner = random.random(room.shape) * room
    boxes = np.vstack((boxes, np.hstack((corner, corner + size[false]))))

    frames = np.concatenate((truth.frames[seen], truth.frames[false]))
    scores = random.uniform(how.low, how.high, len(frames))
    order = np.argsort(frames, kind="stable")
    return Rows(
        frames[order],
        np.full(len(frames), -1, np.int64),
        boxes[order].astype(np.float32),
        scores[order].astype(np.float32),
    )
