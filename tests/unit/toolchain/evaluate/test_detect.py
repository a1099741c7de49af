import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("pycocotools")

from edgecount.cli.eval.detect import command
from edgecount.config import TileSettings
from edgecount.errors import DatasetError
from edgecount.toolchain.evaluate.detect import evaluate, match
from edgecount.toolchain.yolo_files import find_pairs, read_labels

PICTURES = Path(__file__).with_name("pictures")


@pytest.mark.parametrize(
    ("model", "ap30", "ap50"), [("head-n", 0.858, 0.830), ("head-s", 0.877, 0.848)]
)
def test_the_shipped_file_still_finds_what_it_found(model, ap30, ap50):
    report = evaluate(model, PICTURES)
    assert (report.images, report.boxes) == (6, 40)
    assert report.ap30 == pytest.approx(ap30, abs=0.02)
    assert report.ap50 == pytest.approx(ap50, abs=0.02)


def test_recall_by_size_counts_every_box_once():
    report = evaluate("head-n", PICTURES, size=320)
    assert (report.width, report.height) == (320, 320)
    assert sum(row.boxes for row in report.by_size) == report.boxes
    mean = sum(row.boxes * row.recall for row in report.by_size) / report.boxes
    assert mean == pytest.approx(report.recall)


def test_the_command_prints_json():
    result = CliRunner().invoke(
        command, ["--model", "head-n", "--data", str(PICTURES), "--imgsz", "320", "--json"]
    )
    assert result.exit_code == 0
    assert '"ap50_95"' in result.output


def test_tiles_of_pictures_make_their_heads_larger_for_the_network():
    tiles = TileSettings(columns=2, rows=2, whole=True)
    plain, tiled = evaluate("head-n", PICTURES), evaluate("head-n", PICTURES, tiles=tiles)
    assert tiled.boxes == plain.boxes
    assert tiled.tiles == {"columns": 2, "rows": 2, "overlap": 0.2, "whole": True}
    assert max(row.high for row in tiled.by_size if row.boxes) >= max(
        row.high for row in plain.by_size if row.boxes
    )
    assert tiled.by_size[0].low > plain.by_size[0].low
    assert tiled.recall >= plain.recall - 0.05


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--tiles", "2by2"], "e.g. 2x2"),
        (["--tiles", "9x9"], "2 to 16"),
        (["--overlap", "0.3"], "--tiles"),
        (["--whole"], "--tiles"),
        (["--tiles", "2x2", "--overlap", "0.7"], "0.5"),
    ],
)
def test_wrong_tiles_are_refused_with_a_reason(options, told):
    result = CliRunner().invoke(command, ["--model", "head-n", "--data", str(PICTURES), *options])
    assert result.exit_code == 2
    assert told in result.output


def test_tiles_are_taken_from_the_command_line():
    options = ["--tiles", "2x1", "--overlap", "0.3", "--whole", "--imgsz", "320", "--json"]
    result = CliRunner().invoke(command, ["--model", "head-n", "--data", str(PICTURES), *options])
    found = json.loads(result.output)["tiles"]
    assert found == {"columns": 2, "rows": 1, "overlap": 0.3, "whole": True}


def test_a_true_box_is_found_once_and_by_enough_overlap():
    truth = np.array([[0, 0, 10, 10], [20, 0, 30, 10]], np.float32)
    twice = np.array([[0, 0, 10, 10], [1, 0, 11, 10]], np.float32)
    assert match(truth, twice).tolist() == [True, False]
    assert match(truth, np.array([[28, 0, 38, 10]], np.float32)).tolist() == [False, False]
    assert match(np.zeros((0, 4), np.float32), twice).tolist() == []


def test_labels_lie_beside_pictures_or_in_their_own_folder(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").write_bytes(b"")
    (tmp_path / "train" / "images").mkdir(parents=True)
    (tmp_path / "train" / "images" / "y.jpg").write_bytes(b"")
    labels = [label for _, label in find_pairs(tmp_path)]
    assert labels == [tmp_path / "a" / "x.txt", tmp_path / "train" / "labels" / "y.txt"]
    assert len(find_pairs(tmp_path, ["train"])) == 1


def test_bad_data_is_explained(tmp_path):
    with pytest.raises(DatasetError, match="no pictures"):
        find_pairs(tmp_path)
    bad = tmp_path / "bad.txt"
    bad.write_text("0 a b c d\n")
    with pytest.raises(DatasetError, match="not a YOLO label file"):
        read_labels(bad, 1)
    bad.write_text("3 0.5 0.5 0.1 0.1\n")
    with pytest.raises(DatasetError, match="names class 3"):
        read_labels(bad, 1)
