"""The MOTChallenge reader and writer."""

from pathlib import Path

import numpy as np
import pytest

from edgecount.errors import DatasetError
from edgecount.toolchain.evaluate import motchallenge

INI = "[Sequence]\nname=street\nframeRate=14\nseqLength=3\nimWidth=640\nimHeight=480\n"


@pytest.fixture
def sequence(tmp_path: Path) -> Path:
    folder = tmp_path / "street"
    folder.mkdir()
    (folder / "gt.txt").write_text("2,7,10,20,30,40,1,-1,-1,-1\n1,7,11,20,30,40,0,-1,-1,-1\n")
    (folder / "det.txt").write_text("1,-1,0,0,10,10,0.5\n1,-1,5,5,10,10,0.9\n")
    (folder / "seqinfo.ini").write_text(INI)
    return folder


def test_info(sequence: Path) -> None:
    assert motchallenge.read_info(sequence) == motchallenge.SequenceInfo(
        "street", 14.0, 3, 640, 480
    )


def test_rows_are_sorted_by_frame_and_boxes_are_corners(sequence: Path) -> None:
    rows = motchallenge.read_truth(sequence)
    assert rows.frames.tolist() == [1, 2]
    assert rows.boxes.tolist() == [[11, 20, 41, 60], [10, 20, 40, 60]]
    assert rows.boxes.dtype == np.float32


def test_considered_drops_boxes_flagged_zero(sequence: Path) -> None:
    assert motchallenge.read_truth(sequence).considered().frames.tolist() == [2]


def test_detections_of_a_frame_come_best_first(sequence: Path) -> None:
    rows = motchallenge.read_detections(sequence)
    np.testing.assert_allclose(rows.detections(1).scores, [0.9, 0.5], rtol=1e-6)
    assert len(rows.detections(2)) == 0


def test_nested_layout_is_found_too(tmp_path: Path) -> None:
    for kind in ("gt", "det"):
        (tmp_path / "S" / kind).mkdir(parents=True)
        (tmp_path / "S" / kind / f"{kind}.txt").write_text("1,1,0,0,1,1,1\n")
    (tmp_path / "readme").mkdir()
    assert motchallenge.find_sequences(tmp_path) == [tmp_path / "S"]
    assert len(motchallenge.read_detections(tmp_path / "S")) == 1


def test_a_sequence_is_its_own_dataset(sequence: Path) -> None:
    assert motchallenge.find_sequences(sequence) == [sequence]
    assert motchallenge.find_sequences(sequence.parent) == [sequence]


def test_without_seqinfo_the_length_is_the_last_frame(sequence: Path) -> None:
    (sequence / "seqinfo.ini").unlink()
    with pytest.warns(UserWarning, match="30 FPS"):
        info = motchallenge.read_info(sequence)
    assert (info.fps, info.length) == (30.0, 2)


def test_written_rows_read_back(tmp_path: Path, sequence: Path) -> None:
    rows = motchallenge.read_truth(sequence)
    motchallenge.write_rows(tmp_path / "out" / "gt.txt", rows)
    again = motchallenge.read_rows(tmp_path / "out" / "gt.txt")
    for name in ("frames", "ids", "boxes", "scores"):
        np.testing.assert_array_equal(getattr(again, name), getattr(rows, name))


@pytest.mark.parametrize("line", ["1,2,3", "1,1,a,0,1,1,1", "0,1,0,0,1,1,1", "1,1,nan,0,1,1,1"])
def test_a_malformed_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "gt.txt"
    path.write_text(f"1,1,0,0,1,1,1\n{line}\n")
    with pytest.raises(DatasetError, match="line 2"):
        motchallenge.read_rows(path)


@pytest.mark.parametrize("text", ["[Other]\n", "[Sequence]\nframeRate=x\nseqLength=1\n"])
def test_a_bad_seqinfo_says_what_it_needs(sequence: Path, text: str) -> None:
    (sequence / "seqinfo.ini").write_text(text)
    with pytest.raises(DatasetError, match="seqLength"):
        motchallenge.read_info(sequence)


def test_missing_files_are_named(tmp_path: Path, sequence: Path) -> None:
    (sequence / "det.txt").unlink()
    assert not motchallenge.has_detections(sequence)
    with pytest.raises(DatasetError, match=r"det\.txt"):
        motchallenge.read_detections(sequence)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="no sequence"):
        motchallenge.find_sequences(tmp_path / "empty")
    with pytest.raises(DatasetError, match="not a folder"):
        motchallenge.find_sequences(tmp_path / "absent")
