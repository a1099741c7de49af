"""Pictures and boxes held in memory as tensors."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Sequence, Tuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from edgecount.errors import DatasetError
from edgecount.toolchain.yolo_files import read_labels

PAD = 114
IGNORE = -2  # class of a region in which nothing is right or wrong
EMPTY = -1  # class of an unused slot
SPOTS = 8192  # look-alikes that are remembered


@dataclass(frozen=True)
class PictureSet:
    """Pictures of one cached size with their boxes, on one device.

    Attributes:
        atlas: (N, S, S + S // 2) int32, a pixel packed as B | G << 8 | R << 16. Left the picture,
            at its right the same at half and at a quarter of the size, so that a strong zoom-out
            reads smoothed pixels.
        extent: (N, 2) float32, width and height of the picture inside S × S (top left).
        boxes: (N, M, 4) float32, x1, y1, x2, y2 in pixels of the cached picture.
        classes: (N, M) int64, a class, ``IGNORE`` or ``EMPTY``.
        spot_pictures: (S,) int64, pictures that hold known look-alikes, cyclically repeated.
        spots: (S, 4) float32, their boxes.
        spot_chance: () float32, how often a pasted background is one of them; 0 while none is
            known.
    """

    atlas: Tensor
    extent: Tensor
    boxes: Tensor
    classes: Tensor
    spot_pictures: Tensor
    spots: Tensor
    spot_chance: Tensor

    def set_spots(self, pictures: Tensor, boxes: Tensor, chance: float) -> None:
        """Remember look-alikes: (n,) pictures and (n, 4) boxes; the tensors stay where they are."""
        if len(pictures):
            index = torch.arange(len(self.spots)) % len(pictures)
            self.spot_pictures.copy_(pictures[index])
            self.spots.copy_(boxes[index])
        self.spot_chance.fill_(chance if len(pictures) else 0.0)

    @property
    def size(self) -> int:
        """S, the side of the square that holds a picture."""
        return int(self.atlas.shape[1])

    def __len__(self) -> int:
        return int(self.atlas.shape[0])

    def pictures(self, index: Tensor) -> Tensor:
        """(n, 3, S, S) float32 BGR, padded with 114."""
        packed = self.atlas[index, :, : self.size]
        planes = [(packed >> shift) & 255 for shift in (0, 8, 16)]
        return torch.stack(planes, 1).float()


def load_pictures(
    pairs: Sequence[Tuple[Path, Path]],
    size: int,
    classes: int,
    device: torch.device,
    spare: int = 16,
) -> PictureSet:
    """Read pictures, shrink or enlarge each so that its longest side is ``size``, pack them.

    Args:
        pairs: Picture and label files.
        size: Side of the cached square, a multiple of 4.
        classes: Number of classes, to check labels.
        device: Where the tensors go.
        spare: Empty box slots per picture, for labels that self-labelling adds.

    Raises:
        DatasetError: A picture or label cannot be read.
    """
    with ThreadPoolExecutor() as pool:
        read = list(pool.map(lambda p: _read_picture(p[0], size), pairs))
    labels = [read_labels(p[1], classes) for p in pairs]
    extent = np.array([wh for _, wh in read], np.float32)
    most = max((len(rows) for rows in labels), default=0) + spare
    boxes = np.zeros((len(pairs), most, 4), np.float32)
    kinds = np.full((len(pairs), most), EMPTY, np.int64)
    for i, rows in enumerate(labels):
        centre, half = rows[:, 1:3], rows[:, 3:5] / 2
        corners = np.concatenate((centre - half, centre + half), 1)
        boxes[i, : len(rows)] = corners * np.tile(extent[i], 2)
        kinds[i, : len(rows)] = rows[:, 0]
    chunks = [
        _pack(torch.from_numpy(np.stack([im for im, _ in read[i : i + 256]])).to(device))
        for i in range(0, len(read), 256)
    ]
    return PictureSet(
        atlas=torch.cat(chunks),
        extent=torch.from_numpy(extent).to(device),
        boxes=torch.from_numpy(boxes).to(device),
        classes=torch.from_numpy(kinds).to(device),
        spot_pictures=torch.zeros(SPOTS, dtype=torch.int64, device=device),
        spots=torch.ones(SPOTS, 4, device=device),
        spot_chance=torch.zeros((), device=device),
    )


def _read_picture(path: Path, size: int) -> Tuple[npt.NDArray[np.uint8], Tuple[int, int]]:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise DatasetError(f"{path} cannot be read as a picture")
    height, width = image.shape[:2]
    scale = size / max(height, width)
    if scale != 1:
        width, height = max(1, round(width * scale)), max(1, round(height * scale))
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        image = cv2.resize(image, (width, height), interpolation=method)
    square = np.full((size, size, 3), PAD, np.uint8)
    square[:height, :width] = image
    return square, (width, height)


def _pack(images: Tensor) -> Tensor:
    """(n, S, S, 3) uint8 to the atlas layout, (n, S, S + S // 2) int32."""
    n, size = images.shape[:2]
    atlas = torch.zeros(n, size, size + size // 2, dtype=torch.int32, device=images.device)
    planes = images.permute(0, 3, 1, 2).float()
    for level, (x, y) in enumerate(mip_origins(size)):
        side = size >> level
        smaller = F.avg_pool2d(planes, 1 << level) if level else planes
        b, g, r = smaller.round().int().unbind(1)
        atlas[:, y : y + side, x : x + side] = b | g << 8 | r << 16
    return atlas


def mip_origins(size: int) -> Tuple[Tuple[int, int], ...]:
    """Where the full, half and quarter picture start in the atlas (x, y)."""
    return (0, 0), (size, 0), (size, size // 2)
