"""What is in a calibration set, why, and the hash of each file."""

import json
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Iterable, Optional, Tuple

from edgecount.errors import DatasetError

FILE = "manifest.json"
_FORMAT = 1


@dataclass(frozen=True)
class Entry:
    """One picture.

    Attributes:
        file: Its name in the set's folder.
        sha256: Of the file.
        origin: Where it comes from: a path in the source, or a frame's number; for a copy
            the file in the set that it was made of, for a mosaic all its pictures.
        why: ``dark``, ``blurred`` or ``crowded`` for a picture that was chosen as one of the
            source's most so, ``diverse`` for one that differs from the others, and
            ``blurred copy`` or ``dark copy``, and ``zoomed out`` for a mosaic of shrunk ones.
        luma: Mean brightness, 0..255.
        sharpness: See :class:`~.traits.Traits`.
        crowding: Heads that the given model saw, or the part of pixels on edges, 0..1.
    """

    file: str
    sha256: str
    origin: str
    why: str
    luma: float
    sharpness: float
    crowding: float


@dataclass(frozen=True)
class Manifest:
    """A calibration set.

    Attributes:
        source: What it was picked from; passwords are masked.
        seen: How many pictures of the source were looked at.
        crowded_by: What judged crowding: a model's name, or ``edges``.
        notes: What its maker was warned of.
        images: The pictures, in the order in which they were chosen.
    """

    source: str
    seen: int
    crowded_by: str
    notes: Tuple[str, ...]
    images: Tuple[Entry, ...]

    @property
    def sha256(self) -> str:
        """Hash of all pictures' hashes, in order."""
        return combined(entry.sha256 for entry in self.images)

    def save(self, folder: Path) -> None:
        """Write it into the set's folder. Raises OSError."""
        data = {"format": _FORMAT, "sha256": self.sha256, **asdict(self)}
        (folder / FILE).write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")

    @staticmethod
    def load(folder: Path) -> "Optional[Manifest]":
        """The manifest of a folder; None where it has none.

        Raises:
            DatasetError: It cannot be read, or was changed by hand.
        """
        path = folder / FILE
        if not path.exists():
            return None
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if data.pop("format") != _FORMAT:
                raise ValueError(f"not of format {_FORMAT}")
            written = data.pop("sha256")
            images = tuple(Entry(**entry) for entry in data.pop("images"))
            made = Manifest(**{**data, "images": images, "notes": tuple(data["notes"])})
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise DatasetError(
                f"{path} is no manifest of a calibration set ({error}): make the set again with  "
                "edgecount calibrate-set"
            ) from error
        if made.sha256 != written:
            raise DatasetError(
                f"the hashes in {path} do not fit together: it was changed after it was made; "
                "make the set again with  edgecount calibrate-set"
            )
        return made


def combined(hashes: Iterable[str]) -> str:
    """SHA-256 of hashes, one a line."""
    return sha256("\n".join(hashes).encode("ascii")).hexdigest()
