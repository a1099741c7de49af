"""Copies of pictures as a bad night, a moving lens or a camera far away would have made them."""

from typing import Sequence

import cv2
import numpy as np

from edgecount.records import UInt8Array

_LEAST_LENGTH = 3
_GAMMA = 1.3
_READ_NOISE = 3.0
_SHOT_NOISE = 0.6


def blurred(image: UInt8Array, random: np.random.Generator) -> UInt8Array:
    """Smear a picture, (H, W, 3) uint8, along a line of 1 to 3 % of its longer side."""
    side = max(image.shape[:2])
    length = max(_LEAST_LENGTH, round(side * random.uniform(0.01, 0.03))) | 1
    kernel = np.zeros((length, length), np.float32)
    centre, angle = length // 2, random.uniform(0.0, np.pi)
    reach = centre * np.array([np.cos(angle), np.sin(angle)])
    start, end = (tuple(round(centre + s * r) for r in reach) for s in (-1, 1))
    cv2.line(kernel, start, end, 1.0)
    return np.asarray(cv2.filter2D(image, -1, kernel / kernel.sum()), np.uint8)


def darkened(image: UInt8Array, random: np.random.Generator) -> UInt8Array:
    """Take light from a picture, (H, W, 3) uint8, to 15 to 40 %, with a sensor's noise."""
    light = 255.0 * (image.astype(np.float32) / 255.0) ** _GAMMA * random.uniform(0.15, 0.4)
    spread = _READ_NOISE + _SHOT_NOISE * np.sqrt(light)
    noisy = light + spread * random.standard_normal(light.shape, np.float32)
    return np.asarray(np.clip(np.rint(noisy), 0, 255), np.uint8)


def zoomed_out(images: Sequence[UInt8Array], side: int) -> UInt8Array:
    """Shrink pictures, (H, W, 3) uint8, into one of ``side`` × ``side``, row by row.

    A square number of them fills it; each covers its cell, and what sticks out is cut off.
    """
    grid = round(len(images) ** 0.5)
    whole = np.zeros((side, side, 3), np.uint8)
    edges = np.linspace(0, side, grid + 1).astype(int)
    for number, image in enumerate(images[: grid * grid]):
        row, column = divmod(number, grid)
        cell = whole[edges[row] : edges[row + 1], edges[column] : edges[column + 1]]
        cell[:] = _covering(image, cell.shape[0], cell.shape[1])
    return whole


def _covering(image: UInt8Array, height: int, width: int) -> UInt8Array:
    scale = max(height / image.shape[0], width / image.shape[1])
    size = max(width, round(image.shape[1] * scale)), max(height, round(image.shape[0] * scale))
    shrunk = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    top, left = (size[1] - height) // 2, (size[0] - width) // 2
    return np.asarray(shrunk[top : top + height, left : left + width], np.uint8)
