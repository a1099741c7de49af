"""What makes pictures different for a detector, in a few hundred numbers."""

from dataclasses import dataclass

import cv2
import numpy as np

from edgecount.records import Float32Array, UInt8Array

_SIDE = 256
_GRID = 16
_EDGE_GRID = 4
_TONES = 16
_HUES = 12
# Saturation, of 255, from which on a pixel has a colour.
_VIVID = 64
# Differences of luma across an edge that count, of 255.
_EDGE = 32.0
# Width of the blur that tells how sharp a picture was, pixels of the small one.
_BLUR = 9
# How much each part of an embedding weighs; each part's distances reach about 1.
_WEIGHTS = {"luma": 1.0, "edges": 1.0, "tones": 0.5, "hues": 0.3, "traits": 0.5}


@dataclass(frozen=True)
class Traits:
    """What may make a picture hard.

    Attributes:
        luma: Mean brightness, 0..255.
        sharpness: Part of the differences between neighbours that a blur takes away, 0..1, in
            the direction where it is least: what is blurred already loses little (Crete et al.
            2007). Independent of light and contrast.
        edges: Part of the pixels that lie on an edge, 0..1: many where much stands close.
    """

    luma: float
    sharpness: float
    edges: float


@dataclass(frozen=True)
class Look:
    """One picture's traits and its embedding, (n,) float32, to be compared by distance."""

    traits: Traits
    embedding: Float32Array


def look_at(image: UInt8Array) -> Look:
    """Embed a picture, (H, W, 3) uint8 BGR, and measure its traits."""
    small = _small(image)
    gray = np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), np.uint8)
    edges = _edges(gray)
    traits = Traits(
        luma=float(gray.mean()),
        sharpness=min(_sharpness(gray), _sharpness(np.ascontiguousarray(gray.T))),
        edges=float(edges.mean()),
    )
    parts = {
        "luma": _cells(gray.astype(np.float32) / np.float32(255), _GRID),
        "edges": _cells(edges, _EDGE_GRID),
        "tones": _tones(gray),
        "hues": _hues(small),
        "traits": np.array((traits.luma / 255.0, traits.sharpness, traits.edges), np.float32),
    }
    weighted = [np.float32(_WEIGHTS[name]) * part for name, part in parts.items()]
    return Look(traits, np.concatenate(weighted))


def _small(image: UInt8Array) -> UInt8Array:
    height, width = image.shape[:2]
    scale = _SIDE / max(height, width)
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size, interpolation=how), np.uint8)


def _edges(gray: UInt8Array) -> Float32Array:
    """1 where a pixel lies on an edge, else 0."""
    across, down = cv2.Sobel(gray, cv2.CV_32F, 1, 0), cv2.Sobel(gray, cv2.CV_32F, 0, 1)
    # Sobel's kernel weighs a step fourfold.
    return np.asarray(cv2.magnitude(across, down) > 4 * _EDGE, np.float32)


def _sharpness(gray: UInt8Array) -> float:
    """Sharpness along the rows; 1 where there is nothing to blur."""
    plane = gray.astype(np.float32)
    soft = np.asarray(cv2.blur(plane, (_BLUR, 1)), np.float32)
    before, after = (np.abs(np.diff(p, axis=1)) for p in (plane, soft))
    total = float(before.sum())
    return float(np.maximum(before - after, 0).sum()) / total if total else 1.0


def _cells(plane: Float32Array, side: int) -> Float32Array:
    """Means over a grid of cells, (side²,), so weighted that distances are root mean squares."""
    means = cv2.resize(plane, (side, side), interpolation=cv2.INTER_AREA)
    cells: Float32Array = np.asarray(means, np.float32).reshape(-1) / np.float32(side)
    return cells


def _tones(gray: UInt8Array) -> Float32Array:
    """How much of each brightness there is, (tones,); roots, as Hellinger's distance has it."""
    counts = cv2.calcHist([gray], [0], None, [_TONES], [0, 256])
    return _root_share(counts, gray.size)


def _hues(image: UInt8Array) -> Float32Array:
    """How much of each colour there is, (hues,): grey pixels have none."""
    hsv = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2HSV), np.uint8)
    vivid = np.asarray(hsv[..., 1] > _VIVID, np.uint8)
    counts = cv2.calcHist([hsv], [0], vivid, [_HUES], [0, 180])
    return _root_share(counts, vivid.size)


def _root_share(counts: object, total: int) -> Float32Array:
    shares = np.asarray(counts, np.float32).reshape(-1) / np.float32(total)
    return np.asarray(np.sqrt(shares), np.float32)
