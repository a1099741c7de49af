"""What the annotator draws, and where."""

import cv2
import numpy as np
import pytest

from edgecount.config import LineSettings, ZoneSettings
from edgecount.errors import ConfigError, EdgecountError
from edgecount.records import LineTotals, Tracks, ZoneState
from edgecount.runtime.annotate import Annotator

LINE = LineSettings.model_validate({"name": "middle", "from": [0.0, 0.5], "to": [1.0, 0.5]})
ZONE = ZoneSettings.model_validate(
    {"name": "hall", "polygon": [[0.1, 0.1], [0.9, 0.1], [0.5, 0.4]]}
)


def tracks(*boxes, confirmed=True):
    n = len(boxes)
    return Tracks(
        np.arange(1, n + 1, dtype=np.int64),
        np.asarray(boxes, np.float32).reshape(n, 4),
        np.ones(n, np.float32),
        np.zeros(n, np.int32),
        np.full(n, confirmed),
        np.zeros(0, np.int64),
    )


def black():
    return np.zeros((240, 320, 3), np.uint8)


def annotate(path, *frames):
    annotator = Annotator(path, [LINE], [ZONE], 10.0)
    for t in frames:
        annotator.add(black(), t, {"middle": LineTotals(3, 1)}, {"hall": ZoneState(2, 5, 3)})
    annotator.close()
    return cv2.imread(str(path)) if path.suffix == ".png" else None


def test_the_fullest_frame_becomes_the_picture(tmp_path):
    picture = annotate(
        tmp_path / "out.png",
        tracks([10, 200, 30, 220]),
        tracks([10, 200, 30, 220], [200, 200, 220, 220]),
        tracks([10, 200, 30, 220]),
    )
    assert picture[210, 200].any()
    assert picture[210, 10].any()


def test_the_line_and_its_direction_are_drawn(tmp_path):
    picture = annotate(tmp_path / "out.png", tracks())
    assert picture[120, 20].any()
    # The arrow points down: for this line, down is "in".
    below, above = picture[128, 155:166], picture[112, 155:166]
    assert below.any()
    assert not above.any()


def test_the_given_picture_is_not_drawn_into(tmp_path):
    annotator = Annotator(tmp_path / "out.png", [LINE], [], 10.0)
    image = black()
    annotator.add(image, tracks([10, 10, 30, 30]), {}, {})
    assert not image.any()


def test_a_video_has_every_frame(tmp_path):
    path = tmp_path / "out.mp4"
    annotate(path, *[tracks([10 + i, 200, 30 + i, 220]) for i in range(7)])
    capture = cv2.VideoCapture(str(path))
    count = 0
    while capture.read()[0]:
        count += 1
    assert count == 7


@pytest.mark.parametrize("name", ["out.gif", "out", "missing/out.mp4"])
def test_what_cannot_be_written_is_refused_before_it_starts(tmp_path, name):
    with pytest.raises(ConfigError, match="cannot annotate into"):
        Annotator(tmp_path / name, [], [], 10.0)


def test_a_disk_that_takes_nothing_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(cv2, "imwrite", lambda *_: False)
    annotator = Annotator(tmp_path / "out.png", [LINE], [], 10.0)
    annotator.add(black(), tracks(), {}, {})
    with pytest.raises(EdgecountError, match="writable"):
        annotator.close()
