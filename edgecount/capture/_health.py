"""Does the picture itself lie? Covered, defocused, frozen, dark, over-exposed, turned.

A camera can deliver 25 frames per second of nothing. Each look at the picture takes a
small grey copy of it (and some rows at full resolution, for its sharpness), compares it
with what this camera usually shows, and raises a flag when something was wrong for some
seconds. Flags go when the picture has been right again for some seconds.

What is usual is learnt while nothing seems wrong, with a time constant of a minute: a
view that slowly fills with people is usual soon; one that changes as a whole within
seconds and then stands still is a camera that was turned.
"""

from collections import deque
from dataclasses import dataclass
from typing import Deque, Dict, Optional, Tuple

import cv2
import numpy as np
from numpy.typing import NDArray

from edgecount.records import Float32Array, UInt8Array

# The small picture (width, height) and its grid of blocks.
_SIZE = (160, 120)
_GRID = (8, 6)
# Pixels that are looked at for sharpness; more cost time and tell nothing more.
_SHARPNESS_PIXELS = 50_000
# Squared differences over 1 and over 4 pixels relate as 1 to 16 where nothing is sharp.
_SMOOTH = 1.0 / 16.0


@dataclass(frozen=True)
class Limits:
    """When a picture is wrong. Grey levels are 0..255, times in seconds.

    Attributes:
        raise_s: How long something must be wrong before it is flagged.
        clear_s: How long it must be right again before the flag goes.
        chance_s: What lasts less long than this counts neither way.
        learn_s: Time constant of what is usual.
        warm_up_s: How long a view must have been right before others are judged by it.
        flat: Standard deviation within a block under which the block shows nothing.
        flat_in_the_dark: The same for a dark picture, whose contrasts are small.
        covered: Part of the blocks that usually show something and now show nothing.
        covered_at_first: Part of all blocks that show nothing, before one knows what is usual.
        dark: 95 % of a dark picture is darker than this.
        burnt_level: A pixel this bright is burnt out.
        burnt: Part of the picture that is burnt out, when it is over-exposed ...
        burnt_more: ... and by how much this is more than usual.
        blurred: Sharpness, as a part of the usual one, under which a picture is defocused.
        smooth: Sharpness under which it is defocused whatever is usual.
        frozen_s: How long a picture must stay the same to be frozen.
        same_mean: Mean absolute difference up to which two small pictures are the same ...
        same_most: ... and largest difference; a frozen picture that is encoded again
            differs by 2.
        shift: Shift, as a part of the picture's width, that is a turned camera.
        sure: Response of the phase correlation from which on its shift is believed.
        in_place: Response at no shift that proves that the camera has not moved.
        alike: Correlation of a block with its usual look from which on it looks as usual.
        strange: Part of the blocks that look as usual, up to which the view is another one.
        familiar: Part of the blocks that look as usual, from which on it is the same one.
        turn_s: A camera is turned within this time; crowds gather more slowly.
        adopt_s: A turned camera's new view is taken for the usual one after this time.
    """

    raise_s: float = 4.0
    clear_s: float = 3.0
    chance_s: float = 0.5
    learn_s: float = 60.0
    warm_up_s: float = 10.0
    flat: float = 4.0
    flat_in_the_dark: float = 1.5
    covered: float = 0.6
    covered_at_first: float = 0.95
    dark: float = 50.0
    burnt_level: float = 250.0
    burnt: float = 0.4
    burnt_more: float = 0.25
    blurred: float = 0.25
    smooth: float = 0.008
    frozen_s: float = 8.0
    same_mean: float = 0.05
    same_most: float = 2.0
    shift: float = 0.025
    sure: float = 0.25
    in_place: float = 0.12
    alike: float = 0.5
    strange: float = 0.35
    familiar: float = 0.6
    turn_s: float = 6.0
    adopt_s: float = 1800.0


class PictureHealth:
    """Watches the pictures of one camera.

    Args:
        limits: When a picture is wrong.
    """

    def __init__(self, limits: Optional[Limits] = None) -> None:
        self._limits = limits or Limits()
        self._usual = _Usual(self._limits)
        self._stillness = _Stillness(self._limits)
        self._turn = _Turn(self._limits)
        self._alarms: Dict[str, _Alarm] = {}

    def update(self, image: UInt8Array, time: float) -> Tuple[str, ...]:
        """Look at a picture, about twice a second.

        Args:
            image: (height, width, 3) uint8, BGR.
            time: Its stream time, seconds.

        Returns:
            What is wrong with the picture, sorted; empty is good. Of ``covered``, ``dark``,
            ``defocused``, ``frozen``, ``moved``, ``overexposed``.
        """
        look = _Look.at(image, time, self._limits)
        wrong = self._judge(look)
        if not any(wrong.values()) and self._turn.settled(time):
            self._usual.learn(look)
        for name, now in wrong.items():
            self._alarms.setdefault(name, _Alarm(self._limits)).update(now, time)
        if self._alarms["moved"].lasts(time) > self._limits.adopt_s:
            self._adopt()
        flags = {name for name, alarm in self._alarms.items() if alarm.raised}
        if self._stillness.lasts(look) >= self._limits.frozen_s and not flags & _BLIND:
            flags.add("frozen")
        return tuple(sorted(flags))

    def _judge(self, look: "_Look") -> Dict[str, bool]:
        """What seems wrong with this one picture."""
        limits, usual = self._limits, self._usual
        dark = look.level_95 < limits.dark
        burnt = look.burnt >= max(limits.burnt, usual.burnt + limits.burnt_more)
        covered = not burnt and usual.hides(look)
        blind = dark or burnt or covered
        return {
            "dark": dark,
            "overexposed": burnt,
            "covered": covered,
            "defocused": not blind and look.sharpness < usual.least_sharpness(),
            "moved": not blind and self._turn.seen(look, usual),
        }

    def _adopt(self) -> None:
        """Take the view as it is now for the usual one."""
        self._usual = _Usual(self._limits)
        self._turn = _Turn(self._limits)
        self._alarms = {}


# In such a picture nothing can be seen to move.
_BLIND = frozenset(("covered", "dark", "overexposed"))


@dataclass(frozen=True)
class _Look:
    """What is measured in one picture.

    Attributes:
        time: Stream time, seconds.
        small: (120, 160) float32, grey.
        mean: (6, 8) float32, mean of each block.
        deviation: (6, 8) float32, standard deviation within each block.
        flat: Standard deviation under which a block of this picture shows nothing.
        level_95: 95 % of the picture is darker.
        burnt: Part of the picture that is burnt out.
        sharpness: Energy of the finest details relative to coarser ones, 0 for a blur.
    """

    time: float
    small: Float32Array
    mean: Float32Array
    deviation: Float32Array
    flat: float
    level_95: float
    burnt: float
    sharpness: float

    @staticmethod
    def at(image: UInt8Array, time: float, limits: Limits) -> "_Look":
        small = _shrink(image)
        mean = _per_block(small)
        variance = np.maximum(_per_block(small * small) - mean * mean, 0.0)
        rank = int(0.95 * small.size)
        level_95 = float(np.partition(small.ravel(), rank)[rank])
        return _Look(
            time=time,
            small=small,
            mean=mean,
            deviation=np.sqrt(variance),
            flat=limits.flat_in_the_dark if level_95 < limits.dark else limits.flat,
            level_95=level_95,
            burnt=_burnt(image, small, limits),
            sharpness=_sharpness(image),
        )


class _Usual:
    """What a camera usually shows: running means over the pictures that seemed right."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._since: Optional[float] = None
        self._last = 0.0
        self._small = np.zeros(_SIZE[::-1], np.float32)
        self._deviation = np.zeros(_GRID[::-1], np.float32)
        self._sharpness = 0.0
        self.burnt = 0.0

    @property
    def known(self) -> bool:
        """Whether enough was seen to judge other pictures by it."""
        return self._since is not None and self._last - self._since >= self._limits.warm_up_s

    def learn(self, look: _Look) -> None:
        """Take a picture in."""
        if self._since is None:
            self._since = self._last = look.time
        age = look.time - self._since
        # The plain mean at first, so that a bad first picture does not weigh for a minute.
        weight = max(0.0, look.time - self._last) / min(max(age, 1e-3), self._limits.learn_s)
        weight = 1.0 if age == 0.0 else min(1.0, weight)
        self._small += weight * (look.small - self._small)
        self._deviation += weight * (look.deviation - self._deviation)
        self._sharpness += weight * (look.sharpness - self._sharpness)
        self.burnt += weight * (look.burnt - self.burnt)
        self._last = look.time

    def hides(self, look: _Look) -> bool:
        """Whether blocks that usually show something show nothing."""
        flat = look.deviation < look.flat
        if not self.known:
            return float(flat.mean()) >= self._limits.covered_at_first
        telling = self._deviation >= 2.0 * self._limits.flat
        if np.count_nonzero(telling) < telling.size // 8:
            return False  # a bare wall: it shows nothing that could be hidden
        return float(flat[telling].mean()) >= self._limits.covered

    def least_sharpness(self) -> float:
        """Sharpness under which a picture is defocused."""
        usual = self._sharpness * self._limits.blurred if self.known else 0.0
        return max(usual, self._limits.smooth)

    def likeness(self, look: _Look) -> float:
        """The part of the blocks that look as usual."""
        return _likeness(self._small, look.small, self._limits.alike)

    def shift(self, look: _Look) -> Tuple[float, float]:
        """How far the picture is shifted, as a part of its width, and how sure that is.

        Phase correlation: Kuglin and Hines, "The phase correlation image alignment
        method", 1975. It does not mind changes of brightness.
        """
        # A copy, since OpenCV applies the window to its arguments in place.
        (dx, dy), response = cv2.phaseCorrelate(self._small.copy(), look.small.copy(), _WINDOW)
        return float(np.hypot(dx, dy)) / _SIZE[0], float(response)


class _Stillness:
    """Since when nothing at all has changed in the picture."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._anchor: Optional[_Look] = None

    def lasts(self, look: _Look) -> float:
        """For how long the picture has been the same, seconds."""
        if self._anchor is None or not self._same(self._anchor, look):
            self._anchor = look
        return look.time - self._anchor.time

    def _same(self, a: _Look, b: _Look) -> bool:
        difference = cv2.absdiff(a.small, b.small)
        return (
            float(difference.max()) <= self._limits.same_most
            and float(difference.mean()) <= self._limits.same_mean
        )


class _Turn:
    """Notices that a camera shows another view than usual."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._recent: Deque[_Look] = deque(maxlen=4)
        self._familiar_at = 0.0
        self._away = False

    def seen(self, look: _Look, usual: _Usual) -> bool:
        """Whether the camera seems to be turned; called for each picture that shows something."""
        before = self._recent[0] if self._recent else look
        self._recent.append(look)
        if not usual.known:
            self._familiar_at = look.time
            return False
        shift, response = usual.shift(look)
        if response >= self._limits.sure:
            self._away = shift >= self._limits.shift
            self._note_familiar(look, not self._away)
            return self._away
        in_place = shift < self._limits.shift and response >= self._limits.in_place
        likeness = usual.likeness(look)
        self._note_familiar(look, in_place or likeness >= self._limits.familiar)
        self._away = (
            likeness <= self._limits.strange
            and not in_place
            and self._suddenly(look)
            and _likeness(before.small, look.small, self._limits.alike) >= self._limits.familiar
        )
        return self._away

    def settled(self, time: float) -> bool:
        """Whether the picture at ``time`` may be learnt from.

        Not while it might turn out that the camera is being turned: phase correlation finds
        even a twentieth part of the new view in what is usual, and takes it for the old one.
        """
        unfamiliar_s = time - self._familiar_at
        return not 0.0 < unfamiliar_s <= self._limits.turn_s

    def _note_familiar(self, look: _Look, familiar: bool) -> None:
        if familiar:
            self._familiar_at = look.time

    def _suddenly(self, look: _Look) -> bool:
        """Whether the usual view was there until just now, or was lost in that way."""
        return self._away or look.time - self._familiar_at <= self._limits.turn_s


class _Alarm:
    """Raised when something was wrong for a while, cleared when it was right for a while."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._contrary: Optional[float] = None
        self._confirmed: Optional[float] = None
        self._raised_at = 0.0
        self.raised = False

    def update(self, wrong: bool, time: float) -> None:
        """Take one judgement in; a single one that does not fit its neighbours is chance."""
        if wrong == self.raised:
            self._confirm(time)
            return
        self._confirmed = None
        if self._contrary is None:
            self._contrary = time
        if time - self._contrary >= (self._limits.raise_s if wrong else self._limits.clear_s):
            self.raised, self._raised_at, self._contrary = wrong, time, None

    def _confirm(self, time: float) -> None:
        if self._confirmed is None:
            self._confirmed = time
        if time - self._confirmed >= self._limits.chance_s:
            self._contrary = None

    def lasts(self, time: float) -> float:
        """For how long it has been raised, seconds."""
        return time - self._raised_at if self.raised else 0.0


_WINDOW = cv2.createHanningWindow(_SIZE, cv2.CV_32F)


def _shrink(image: UInt8Array) -> Float32Array:
    """The small grey picture: green alone, which is the most of brightness and the quickest."""
    height, width = image.shape[:2]
    step = max(1, min(width // (2 * _SIZE[0]), height // (2 * _SIZE[1])))
    green = np.ascontiguousarray(image[::step, ::step, 1])
    small = cv2.resize(green, _SIZE, interpolation=cv2.INTER_AREA)
    return small.astype(np.float32)


def _burnt(image: UInt8Array, small: Float32Array, limits: Limits) -> float:
    """The part of the picture in which all colours are burnt out."""
    green = float(np.count_nonzero(small >= limits.burnt_level)) / small.size
    if green < limits.burnt:
        return green  # cannot be more than this, and is nothing to worry about
    step = max(1, image.shape[0] // _SIZE[1])
    return float(np.mean(image[::step, ::step].min(axis=2) >= limits.burnt_level))


def _per_block(values: NDArray[np.float32]) -> Float32Array:
    """(120, 160) float32 to the (6, 8) means of its blocks."""
    return cv2.resize(values, _GRID, interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


def _likeness(a: Float32Array, b: Float32Array, alike: float) -> float:
    """The part of the blocks of two small pictures whose correlation is at least ``alike``."""
    mean_a, mean_b = _per_block(a), _per_block(b)
    covariance = _per_block(a * b) - mean_a * mean_b
    variance_a = np.maximum(_per_block(a * a) - mean_a * mean_a, 0.0)
    variance_b = np.maximum(_per_block(b * b) - mean_b * mean_b, 0.0)
    return float(np.mean(covariance >= alike * np.sqrt(variance_a * variance_b) + 1e-3))


def _sharpness(image: UInt8Array) -> float:
    """Energy of differences over 1 pixel relative to those over 4, along some rows; 0: a blur."""
    height, width = image.shape[:2]
    step = max(1, height * width // _SHARPNESS_PIXELS)
    rows = image[step // 2 :: step, :, 1].astype(np.float32)
    if rows.shape[0] == 0 or width < 8:
        return 1.0
    fine = rows[:, 1:] - rows[:, :-1]
    coarse = rows[:, 4:] - rows[:, :-4]
    fine_energy = float(np.vdot(fine, fine)) / fine.size
    coarse_energy = float(np.vdot(coarse, coarse)) / coarse.size
    return max(0.0, fine_energy / (coarse_energy + 1.0) - _SMOOTH)
