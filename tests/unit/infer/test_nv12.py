import cv2
import numpy as np

from edgecount.infer.nv12 import MATRICES, to_bgr


def test_bt601_is_opencvs() -> None:
    random = np.random.default_rng(0)
    rows = random.integers(0, 256, (96, 80), dtype=np.uint8)
    wanted = cv2.cvtColor(rows, cv2.COLOR_YUV2BGR_NV12)
    assert (to_bgr(rows[:64], rows[64:], MATRICES["bt601"]) == wanted).all()


def test_bt709_gives_back_the_colours_it_was_made_of() -> None:
    colours = np.array([[0, 0, 255], [0, 255, 0], [255, 0, 0], [90, 120, 200], [255] * 3, [0] * 3])
    blue, green, red = colours.T / 255.0
    luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    y = 16 + 219 * luma
    u, v = 128 + 224 * (blue - luma) / 1.8556, 128 + 224 * (red - luma) / 1.5748
    planes = [np.rint(p).astype(np.uint8) for p in (y, u, v)]
    rows = np.repeat(planes[0], 2)[None].repeat(2, 0)
    chroma = np.stack(planes[1:], -1).reshape(1, -1)
    made = to_bgr(rows, chroma, MATRICES["bt709"])[0, ::2].astype(int)
    assert np.abs(made - colours).max() <= 2
