"""Reads and writes the MOTChallenge layout: one folder per sequence.

``SEQ/gt.txt`` (or ``SEQ/gt/gt.txt``), ``SEQ/det.txt`` (or ``SEQ/det/det.txt``) and
``SEQ/seqinfo.ini``. A line of a text file is ``frame, id, left, top, width, height,
score, …`` with frames from 1; in ground truth the score is the "consider" flag (0: the
box is no part of the evaluation), in detections the id is -1. Format:
https://arxiv.org/abs/1504.01942, section 3.3.
"""

import configparser
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import List, Optional, Tuple

import numpy as np

from edgecount.errors import DatasetError
from edgecount.records import Detections, Float32Array, Int32Array, Int64Array

_COLUMNS = 7  # frame, id, left, top, width, height, score; what follows differs by data set
_DEFAULT_FPS = 30.0


@dataclass(frozen=True)
class SequenceInfo:
    """What ``seqinfo.ini`` says.

    Attributes:
        name: Name of the sequence; of its folder where the file does not give one.
        fps: Frames per second.
        length: Number of frames.
        width: Width of the picture in pixels, 0 where unknown.
        height: Height of the picture in pixels, 0 where unknown.
    """

    name: str
    fps: float
    length: int
    width: int = 0
    height: int = 0


@dataclass(frozen=True)
class Rows:
    """The lines of one text file as arrays, sorted by frame (stable).

    Attributes:
        frames: (N,) int32, from 1.
        ids: (N,) int64, -1 where unknown.
        boxes: (N, 4) float32, ``x1, y1, x2, y2`` in pixels.
        scores: (N,) float32; in ground truth 0 means "do not evaluate this box".
    """

    frames: Int32Array
    ids: Int64Array
    boxes: Float32Array
    scores: Float32Array

    def __len__(self) -> int:
        return len(self.frames)

    def span(self, frame: int) -> slice:
        """Where the rows of one frame lie."""
        start, stop = np.searchsorted(self.frames, (frame, frame + 1))
        return slice(int(start), int(stop))

    def considered(self) -> "Rows":
        """Only the rows whose score (in ground truth: the consider flag) is not zero."""
        keep = self.scores != 0
        return Rows(self.frames[keep], self.ids[keep], self.boxes[keep], self.scores[keep])

    def detections(self, frame: int) -> Detections:
        """Give the rows of one frame as a detector would have: best score first."""
        span = self.span(frame)
        order = np.argsort(-self.scores[span], kind="stable")
        scores = self.scores[span][order]
        return Detections(self.boxes[span][order], scores, np.zeros(len(scores), np.int32))


def find_sequences(root: Path) -> List[Path]:
    """Sequence folders: ``root`` itself if it holds a ``gt.txt``, else its sub-folders that do.

    Raises:
        DatasetError: There is none.
    """
    if not root.is_dir():
        raise DatasetError(f"{root} is not a folder: give a MOTChallenge sequence or a folder of")
    if _existing(root, "gt") is not None:
        return [root]
    found = [path for path in sorted(root.iterdir()) if _existing(path, "gt") is not None]
    if not found:
        raise DatasetError(
            f"no sequence in {root}: expected SEQ/gt.txt or SEQ/gt/gt.txt (MOTChallenge layout)"
        )
    return found


def read_info(sequence: Path) -> SequenceInfo:
    """Read ``seqinfo.ini``; without one, the length comes from the text files.

    A sequence without ``seqinfo.ini`` is taken to run at 30 FPS, with a warning.

    Raises:
        DatasetError: The file lacks a key or holds something that is no number.
    """
    path = sequence / "seqinfo.ini"
    if not path.is_file():
        warnings.warn(f"{path} is missing: {_DEFAULT_FPS:g} FPS assumed", stacklevel=2)
        return SequenceInfo(sequence.name, _DEFAULT_FPS, _last_frame(sequence))
    parser = configparser.ConfigParser()
    try:
        parser.read(path, encoding="utf-8")
        section = parser["Sequence"]
        return SequenceInfo(
            name=section.get("name", sequence.name),
            fps=float(section["frameRate"]),
            length=int(section["seqLength"]),
            width=section.getint("imWidth", 0),
            height=section.getint("imHeight", 0),
        )
    except (configparser.Error, KeyError, ValueError) as error:
        raise DatasetError(
            f"{path} cannot be read ({error}): it needs [Sequence] with frameRate and seqLength"
        ) from error


def read_truth(sequence: Path) -> Rows:
    """Read the ground truth of a sequence, boxes that are not to be evaluated included.

    Raises:
        DatasetError: There is none, or a line is malformed.
    """
    return read_rows(_text_file(sequence, "gt"))


def read_detections(sequence: Path) -> Rows:
    """Read the public detections of a sequence.

    Raises:
        DatasetError: There are none, or a line is malformed.
    """
    return read_rows(_text_file(sequence, "det"))


def has_detections(sequence: Path) -> bool:
    """Whether the sequence comes with detections."""
    return _existing(sequence, "det") is not None


def read_rows(path: Path) -> Rows:
    """Read one text file of the format above.

    Raises:
        DatasetError: The file is missing, or a line is malformed; the message names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
    values = [_parse(path, n, line) for n, line in enumerate(lines, 1) if line.strip()]
    table = np.array(values, np.float64).reshape(-1, _COLUMNS)
    table = table[np.argsort(table[:, 0], kind="stable")]
    left_top, size = table[:, 2:4], table[:, 4:6]
    return Rows(
        table[:, 0].astype(np.int32),
        table[:, 1].astype(np.int64),
        np.hstack((left_top, left_top + size)).astype(np.float32),
        table[:, 6].astype(np.float32),
    )


def write_rows(path: Path, rows: Rows) -> None:
    """Write rows in the same format, creating the folder where needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    size = rows.boxes[:, 2:] - rows.boxes[:, :2]
    lines = (
        f"{frame},{id_},{x:.2f},{y:.2f},{w:.2f},{h:.2f},{score:.6g},-1,-1,-1\n"
        for frame, id_, (x, y), (w, h), score in zip(
            rows.frames, rows.ids, rows.boxes[:, :2], size, rows.scores
        )
    )
    path.write_text("".join(lines), encoding="utf-8")


def _parse(path: Path, number: int, line: str) -> Tuple[float, ...]:
    fields = line.replace(",", " ").split()
    try:
        values = tuple(float(field) for field in fields[:_COLUMNS])
    except ValueError as error:
        raise DatasetError(f"{path}, line {number}: {error}") from error
    if len(values) < _COLUMNS:
        raise DatasetError(
            f"{path}, line {number}: {len(values)} columns, "
            "expected frame,id,left,top,width,height,score"
        )
    if not all(np.isfinite(values)) or values[0] < 1:
        raise DatasetError(f"{path}, line {number}: a frame below 1 or a value that is not finite")
    return values


def _existing(sequence: Path, kind: str) -> Optional[Path]:
    candidates = (sequence / f"{kind}.txt", sequence / kind / f"{kind}.txt")
    return next((path for path in candidates if path.is_file()), None)


def _text_file(sequence: Path, kind: str) -> Path:
    path = _existing(sequence, kind)
    if path is None:
        raise DatasetError(f"{sequence} has neither {kind}.txt nor {kind}/{kind}.txt")
    return path


def _last_frame(sequence: Path) -> int:
    kinds = [kind for kind in ("gt", "det") if _existing(sequence, kind) is not None]
    rows = [read_rows(_text_file(sequence, kind)) for kind in kinds]
    return max((int(r.frames[-1]) for r in rows if len(r)), default=0)
