"""The pictures of a folder, for calibration: each read when it is wanted, and checked."""

from hashlib import sha256
from pathlib import Path
from typing import Iterator, List, Optional, Tuple

import cv2
import numpy as np

from edgecount.errors import DatasetError
from edgecount.records import UInt8Array
from edgecount.toolchain.quantize.calibration_set.manifest import Manifest, combined
from edgecount.toolchain.yolo_files import SUFFIXES

FEWEST_USEFUL = 300
MOST_USEFUL = 800


def count_notes(images: int) -> List[str]:
    """What is to be said of a set of so many pictures."""
    if images < FEWEST_USEFUL:
        return [
            (
                f"{images} pictures are few: {FEWEST_USEFUL} to {MOST_USEFUL} make clipping points "
                "that hold; add pictures, best from other hours and cameras"
            )
        ]
    if images > MOST_USEFUL:
        return [
            (
                f"{images} pictures are more than needed: beyond {MOST_USEFUL} calibration takes "
                "longer and clipping points hardly move"
            )
        ]
    return []


class CalibrationImages:
    """The pictures of a calibration set, or of any folder. Can be read again and again.

    Attributes:
        sha256: Hash of all files' hashes, in order.
        notes: What is to be said of it.
    """

    def __init__(self, folder: Path, limit: Optional[int] = None) -> None:
        """Find the pictures of ``folder``, the first ``limit`` of them where it is given.

        Raises:
            DatasetError: There is none, or the manifest is damaged.
        """
        if not folder.is_dir():
            raise DatasetError(
                f"{folder} is not a folder: make a calibration set with  edgecount calibrate-set"
            )
        manifest = Manifest.load(folder)
        self._files = (_listed(folder, manifest) if manifest else _found(folder))[:limit]
        if not self._files:
            raise DatasetError(
                f"{folder} holds no pictures ({', '.join(SUFFIXES)}): make a calibration set with  "
                "edgecount calibrate-set"
            )
        self.sha256 = combined(digest for _, digest in self._files)
        self.notes = count_notes(len(self._files))
        if manifest is None:
            self.notes.append(
                f"{folder} has no manifest: nothing is known of how its pictures were chosen "
                "(edgecount calibrate-set picks diverse ones)"
            )

    def __len__(self) -> int:
        return len(self._files)

    def __iter__(self) -> Iterator[UInt8Array]:
        """(H, W, 3) uint8 BGR each.

        Raises:
            DatasetError: A file is missing, no picture, or not what the manifest says.
        """
        for path, digest in self._files:
            data = _read(path)
            if sha256(data).hexdigest() != digest:
                raise DatasetError(
                    f"{path} was changed since its hash was written: put the original back, or "
                    "make the set again with  edgecount calibrate-set"
                )
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
            if image is None:
                raise DatasetError(f"{path} cannot be read as a picture: remove or replace it")
            yield image  # type: ignore[misc]


def _listed(folder: Path, manifest: Manifest) -> List[Tuple[Path, str]]:
    return [(folder / entry.file, entry.sha256) for entry in manifest.images]


def _found(folder: Path) -> List[Tuple[Path, str]]:
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    return [(path, sha256(_read(path)).hexdigest()) for path in paths]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DatasetError(f"cannot read the picture {path}: {error}") from error
