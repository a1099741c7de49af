"""A clip to try edgecount on: Debian's ``vtest.avi``, or one that is drawn here."""

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Callable, List, Optional, Tuple

import cv2
import numpy as np

from edgecount.errors import EdgecountError
from edgecount.records import UInt8Array

Run = Callable[[List[str], Path], None]
CLIP = "vtest.avi"
_PACKAGE = "opencv-doc"
_APT_LIMIT_S = 180
_SIZE = (768, 576)
_FPS = 10.0
_SECONDS = 20
_SKIN = ((140, 170, 215), (90, 120, 170), (60, 85, 130), (45, 60, 95))
_CLOTHES = ((120, 60, 40), (60, 60, 60), (40, 90, 50), (60, 50, 130), (150, 140, 130))


def fetch(out: Path, run: Optional[Run] = None) -> str:
    """Put a sample clip at ``out``, unless there is one.

    Takes ``vtest.avi`` out of Debian's package without root; where that fails (no apt, no
    network) it draws a clip.

    Args:
        out: File to write.
        run: Runs a command in a folder; for tests.

    Returns:
        A sentence that says what the clip is.

    Raises:
        EdgecountError: The clip cannot be written.
    """
    if out.is_file() and out.stat().st_size:
        return f"{out} is there already"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EdgecountError(f"cannot make the folder {out.parent}: {error}") from error
    try:
        _from_debian(out, run or _run)
    except (OSError, subprocess.SubprocessError, LookupError) as error:
        draw(out)
        return f"{out} was drawn, since Debian's {_PACKAGE} could not be had ({_short(error)})"
    return f"{out} comes from Debian's package {_PACKAGE}"


def draw(out: Path) -> None:
    """Draw people who walk across a yard into a video at ``out``. Raises EdgecountError."""
    writer = cv2.VideoWriter(str(out), cv2.VideoWriter.fourcc(*"MJPG"), _FPS, _SIZE)
    if not writer.isOpened():
        raise EdgecountError(f"cannot write the video {out}: is the folder writable?")
    random = np.random.default_rng(7)
    ground = _ground(random)
    people = [_Walker.at_random(random) for _ in range(9)]
    for frame in range(int(_SECONDS * _FPS)):
        picture = ground.copy()
        for person in sorted(people, key=lambda p: p.foot(frame)[1]):
            person.draw(picture, frame)
        writer.write(picture)
    writer.release()


def _from_debian(out: Path, run: Run) -> None:
    with tempfile.TemporaryDirectory(prefix="edgecount-sample-") as name:
        folder = Path(name)
        run(["apt-get", "download", "-q", _PACKAGE], folder)
        package = next(iter(folder.glob("*.deb")), None)
        if package is None:
            raise LookupError("apt-get downloaded nothing")
        run(["dpkg", "-x", str(package), str(folder / "root")], folder)
        clip = next(iter(folder.glob(f"root/**/{CLIP}")), None)
        if clip is None:
            raise LookupError(f"the package holds no {CLIP}")
        part = out.with_suffix(".part")
        shutil.copyfile(clip, part)
        part.replace(out)


def _run(command: List[str], folder: Path) -> None:
    subprocess.run(  # noqa: S603 - fixed commands
        command, cwd=folder, check=True, timeout=_APT_LIMIT_S, capture_output=True
    )


def _short(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        lines = error.stderr.decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else f"{error.cmd[0]} failed"
    return str(error)


def _ground(random: np.random.Generator) -> UInt8Array:
    width, height = _SIZE
    shade = np.linspace(105, 150, height)[:, None, None]
    noise = cv2.GaussianBlur(random.normal(0, 60, (height, width, 1)), (0, 0), 3)[..., None]
    tint = np.array([0.96, 1.02, 1.0])
    ground: UInt8Array = np.clip((shade + noise) * tint, 0, 255).astype(np.uint8)
    return ground


class _Walker:
    """Somebody who walks along a straight line and sways a little."""

    def __init__(
        self,
        start: "np.ndarray[Tuple[int], np.dtype[np.float64]]",
        step: "np.ndarray[Tuple[int], np.dtype[np.float64]]",
        look: Tuple[int, int, float],
    ) -> None:
        self._start = start
        self._step = step
        self._look = look

    @staticmethod
    def at_random(random: np.random.Generator) -> "_Walker":
        start = random.uniform([60, 120], [_SIZE[0] - 60, _SIZE[1] - 40])
        angle, speed = random.uniform(0, 2 * np.pi), random.uniform(2.0, 5.0)
        step = np.array([np.cos(angle), 0.6 * np.sin(angle)]) * speed
        look = (
            int(random.integers(len(_SKIN))),
            int(random.integers(len(_CLOTHES))),
            float(random.uniform(0, 6)),
        )
        return _Walker(start, step, look)

    def foot(self, frame: int) -> Tuple[float, float]:
        # Walks back and forth between the edges, as on a folded sheet.
        margin = np.array([30.0, 130.0])
        room = np.array([_SIZE[0] - 60.0, _SIZE[1] - 150.0])
        folded = np.mod(self._start + self._step * frame - margin, 2 * room)
        x, y = np.where(folded > room, 2 * room - folded, folded) + margin
        return float(x), float(y)

    def draw(self, picture: UInt8Array, frame: int) -> None:
        x, y = self.foot(frame)
        tall = 55 + 75 * y / _SIZE[1]
        skin, cloth, phase = _SKIN[self._look[0]], _CLOTHES[self._look[1]], self._look[2]
        sway = 3 * np.sin(frame / 2 + phase)

        def at(dx: float, up: float) -> Tuple[int, int]:
            return round(x + dx), round(y - up * tall)

        def ellipse(
            center: Tuple[int, int], half: Tuple[float, float], color: Tuple[int, int, int]
        ) -> None:
            axes = (max(1, round(half[0] * tall)), max(1, round(half[1] * tall)))
            cv2.ellipse(picture, center, axes, 0, 0, 360, color, cv2.FILLED, cv2.LINE_AA)

        thick = max(2, round(0.07 * tall))
        for side in (-1.0, 1.0):
            cv2.line(picture, at(0, 0.5), at(side * sway, 0), (50, 45, 40), thick, cv2.LINE_AA)
        ellipse(at(0, 0.63), (0.13, 0.22), cloth)
        ellipse(at(0, 0.92), (0.065, 0.085), skin)
        hair = (max(1, round(0.066 * tall)), max(1, round(0.08 * tall)))
        cv2.ellipse(picture, at(0, 0.94), hair, 0, 180, 360, (35, 35, 40), cv2.FILLED, cv2.LINE_AA)
