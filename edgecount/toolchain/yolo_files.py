"""Data sets in YOLO format on disk.

Folders may be ``images/`` + ``labels/``, a flat folder with a text file beside each picture, or
either of these inside split folders (``train/``, ``valid/``, ``test/``). A label line is
``class cx cy w h``, normalised to the picture.
"""

from pathlib import Path
from typing import List, Optional, Sequence, Tuple

import numpy as np
import numpy.typing as npt

from edgecount.errors import DatasetError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


def find_pairs(folder: Path, splits: Optional[Sequence[str]] = None) -> List[Tuple[Path, Path]]:
    """Pictures and their label files (which may be missing: a picture without objects).

    Args:
        folder: A data set in one of the layouts above.
        splits: Names of split folders to take; all of them, or the folder itself, when None.

    Raises:
        DatasetError: There is no picture.
    """
    roots = [folder / s for s in splits] if splits else [folder]
    for root in roots:
        if not root.is_dir():
            raise DatasetError(f"{root} is not a folder: give a folder in YOLO format")
    images = sorted(p for r in roots for p in r.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not images:
        raise DatasetError(f"{folder} holds no pictures ({', '.join(SUFFIXES)})")
    return [(image, _label_path(image)) for image in images]


def _label_path(image: Path) -> Path:
    parent = image.parent
    if parent.name == "images":
        parent = parent.with_name("labels")
    return parent / f"{image.stem}.txt"


def read_labels(path: Path, classes: int) -> npt.NDArray[np.float32]:
    """Boxes of one label file, (n, 5): class, cx, cy, w, h, normalised; none if it is missing.

    Raises:
        DatasetError: A line is not a label, or names a class that does not exist.
    """
    if not path.is_file():
        return np.zeros((0, 5), np.float32)
    try:
        rows = [[float(v) for v in line.split()[:5]] for line in path.read_text().splitlines()]
        labels = np.array([r for r in rows if r], np.float32).reshape(-1, 5)
    except ValueError as error:
        raise DatasetError(f"{path} is not a YOLO label file (class cx cy w h): {error}") from error
    if labels.size and not (labels[:, 0].min() >= 0 and labels[:, 0].max() < classes):
        raise DatasetError(f"{path} names class {labels[:, 0].max():.0f}, but there are {classes}")
    return labels
