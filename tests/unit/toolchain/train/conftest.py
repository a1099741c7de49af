"""Drawn pictures to train on: a dark scene, light discs as heads."""

from pathlib import Path
from typing import Callable

import cv2
import numpy as np
import pytest

SIDE = 128


def draw(folder: Path, count: int) -> Path:
    rng = np.random.default_rng(5)
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    for i in range(count):
        image = rng.integers(20, 60, (SIDE, SIDE, 3)).astype(np.uint8)
        lines = []
        for column in range(2):
            x, y = 32 + 64 * column + int(rng.integers(-8, 9)), int(rng.integers(30, 98))
            radius = int(rng.integers(12, 18))
            cv2.circle(image, (x, y), radius, (200, 210, 220), -1)
            cv2.circle(image, (x, y + 3), radius // 3, (60, 60, 90), -1)
            values = (x / SIDE, y / SIDE, 2 * radius / SIDE, 2 * radius / SIDE)
            lines.append("0 " + " ".join(f"{v:.5f}" for v in values))
        cv2.imwrite(str(folder / "images" / f"{i}.png"), image)
        (folder / "labels" / f"{i}.txt").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def drawn(tmp_path: Path) -> Callable[[int], Path]:
    """A function that draws a data set of so many pictures and returns its folder."""
    return lambda count: draw(tmp_path / "drawn", count)
