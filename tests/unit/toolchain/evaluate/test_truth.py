import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecount.config import LineSettings, ZoneSettings
from edgecount.errors import DatasetError
from edgecount.toolchain.evaluate.motchallenge import Rows, SequenceInfo
from edgecount.toolchain.evaluate.truth import (
    LinesFile,
    bridged,
    derive,
    perfect_tracks,
    read_lines,
    read_truth_file,
    sequence_info,
    write_truth_file,
)

INFO = SequenceInfo("walk", 10.0, 60, 1000, 1000)
LINE = LineSettings.model_validate({"name": "door", "from": (0.0, 0.5), "to": (1.0, 0.5)})
ZONE = ZoneSettings.model_validate(
    {"name": "hall", "polygon": [(0.0, 0.4), (1.0, 0.4), (1.0, 0.6), (0.0, 0.6)]}
)
PLACES = LinesFile([LINE], [ZONE])


def _rows(feet, frames=None, track=1, flags=None):
    """Somebody 20 wide and 100 high whose feet are at the given heights."""
    frames = np.arange(1, len(feet) + 1) if frames is None else np.asarray(frames)
    y = np.asarray(feet, np.float32)
    boxes = np.stack((np.full_like(y, 490), y - 100, np.full_like(y, 510), y), axis=1)
    scores = np.ones(len(y), np.float32) if flags is None else np.asarray(flags, np.float32)
    return Rows(frames.astype(np.int32), np.full(len(y), track, np.int64), boxes, scores)


def _lines(truth):
    return [(e.name, e.direction, e.frame, e.person) for e in truth.events if e.kind == "line"]


def test_feet_and_head_cross_at_different_frames():
    walk = _rows(np.arange(305, 905, 10))
    assert _lines(derive(walk, INFO, PLACES, "bottom")) == [("door", "in", 21, 1)]
    # The head's centre is 93.5 px above the feet.
    assert _lines(derive(walk, INFO, PLACES, "head")) == [("door", "in", 30, 1)]


def test_occupancy_is_given_frame_by_frame():
    truth = derive(_rows(np.arange(305, 905, 10)), INFO, PLACES, "bottom")
    present = truth.occupancy["hall"]
    assert len(present) == INFO.length
    assert [n + 1 for n, count in enumerate(present) if count] == list(range(11, 31))


def test_boxes_that_are_not_considered_are_no_truth():
    walk = _rows(np.arange(305, 905, 10), flags=np.zeros(60))
    truth = derive(walk, INFO, PLACES, "bottom")
    assert truth.events == []
    assert max(truth.occupancy["hall"]) == 0


def test_a_hole_is_bridged_by_a_straight_line():
    feet, frames = np.arange(305, 905, 10), np.arange(1, 61)
    keep = (frames < 15) | (frames > 30)
    truth = derive(_rows(feet[keep], frames[keep]), INFO, PLACES, "bottom")
    assert _lines(truth) == [("door", "in", 21, 1)]
    assert sum(truth.occupancy["hall"]) == 20


def test_after_a_long_hole_it_is_somebody_new():
    feet, frames = np.arange(305, 905, 10), np.arange(1, 61)
    keep = (frames < 15) | (frames > 40)
    truth = derive(_rows(feet[keep], frames[keep]), INFO, PLACES, "bottom", max_gap_s=2.0)
    assert _lines(truth) == []


def test_bridged_interpolates_and_splits():
    rows = _rows([100, 130, 200, 210], frames=[1, 4, 20, 21])
    result = bridged(rows, max_gap=2)
    assert result.frames.tolist() == [1, 2, 3, 4, 20, 21]
    assert result.ids.tolist() == [1, 1, 1, 1, 2, 2]
    assert result.boxes[:, 3].tolist() == [100, 110, 120, 130, 200, 210]


def test_every_track_is_ended_once():
    rows = _rows([100, 110, 120])
    stream = list(perfect_tracks(rows, SequenceInfo("s", 10.0, 5, 100, 100)))
    assert [t.ended.tolist() for _, t in stream] == [[], [], [1], [], []]
    assert [len(t) for _, t in stream] == [1, 1, 1, 0, 0]
    assert all(t.confirmed.all() for _, t in stream)


def test_an_unknown_size_is_refused():
    with pytest.raises(DatasetError, match="--size WxH"):
        derive(_rows([1, 2]), SequenceInfo("s", 10.0, 2), PLACES, "bottom")


def test_a_truth_survives_its_file(tmp_path):
    truth = derive(_rows(np.arange(305, 905, 10)), INFO, PLACES, "bottom")
    write_truth_file(tmp_path / "new" / "T.yaml", truth)
    assert read_truth_file(tmp_path / "new" / "T.yaml") == truth


def test_a_truth_without_events_survives_its_file(tmp_path):
    truth = derive(
        _rows([100, 101]), SequenceInfo("s", 10.0, 2, 9, 9), LinesFile([LINE], []), "head"
    )
    write_truth_file(tmp_path / "T.yaml", truth)
    assert read_truth_file(tmp_path / "T.yaml") == truth


@pytest.mark.parametrize(
    "text",
    [
        "lines: [{name: door, from: [0, 0.5], to: [1, 0.5]}]",
        "name: cam\nsource: x.mp4\nlines: [{name: door, from: [0, 0.5], to: [1, 0.5]}]",
        "cameras: [{name: cam, source: x, lines: [{name: door, from: [0, 0.5], to: [1, 0.5]}]}]",
    ],
)
def test_lines_are_read_from_every_form(tmp_path, text):
    path = tmp_path / "L.yaml"
    path.write_text(text)
    assert read_lines(path) == LinesFile([LINE], [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "nothing to count"),
        ("[1]", "no mapping"),
        ("a: [", "cannot be read"),
        ("cameras: [{}, {}]", "exactly one camera"),
        ("lines: [{name: door, from: [0, 2], to: [1, 1]}]", r"0\.from\.1"),
        ("lines: [{name: door, form: [0, 1], to: [1, 1]}]", "did you mean 'from'"),
    ],
)
def test_wrong_lines_are_named(tmp_path, text, message):
    path = tmp_path / "L.yaml"
    path.write_text(text)
    with pytest.raises(DatasetError, match=message) as error:
        read_lines(path)
    assert "L.yaml" in str(error.value)


def test_something_else_is_no_truth(tmp_path):
    path = tmp_path / "T.yaml"
    path.write_text("lines: []")
    with pytest.raises(DatasetError, match="make-truth"):
        read_truth_file(path)


def test_seqinfo_is_found_beside_the_file_and_above_its_folder(tmp_path):
    text = "[Sequence]\nname=s\nframeRate=7\nseqLength=3\nimWidth=8\nimHeight=6\n"
    (tmp_path / "seqinfo.ini").write_text(text)
    (tmp_path / "gt").mkdir()
    assert sequence_info(tmp_path / "gt.txt").fps == 7
    assert sequence_info(tmp_path / "gt" / "gt.txt").fps == 7


def _plain(y, window):
    """Crossings by the textbook: sign changes, pairs within the window cancelled."""
    crossings = []
    for n in range(1, len(y)):
        if (y[n - 1] - 500) * (y[n] - 500) < 0:
            fraction = (500 - y[n - 1]) / (y[n] - y[n - 1])
            crossings.append(((n - 1 + fraction) / 10.0, "in" if y[n] > 500 else "out"))
    kept = []
    for crossing in crossings:
        if kept and crossing[0] - kept[-1][0] < window:
            kept.pop()
        else:
            kept.append(crossing)
    return [direction for _, direction in kept]


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(min_value=0, max_value=2**32 - 1))
def test_without_a_band_the_truth_is_that_of_the_textbook(seed):
    rng = np.random.default_rng(seed)
    y = np.float64(np.float32(500 + rng.normal(0, 25, 80).cumsum()))
    y = np.concatenate((y, np.full(20, y[-1])))  # so that nothing is undecided at the end
    line = LINE.model_copy(update={"band": 0.0, "return_s": 1.0})
    info = SequenceInfo("s", 10.0, len(y), 1000, 1000)
    truth = derive(_rows(y), info, LinesFile([line], []), "bottom")
    assert [e.direction for e in truth.events] == _plain(y, 1.0)
