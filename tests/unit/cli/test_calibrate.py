import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from support.onnx_models import picture_with_spots, spot_model, write_recipe

from edgecount.cli.calibrate import command as calibrate
from edgecount.cli.calibrate_set import command as calibrate_set
from edgecount.errors import ConfigError
from edgecount.toolchain.quantize.table import CalibrationTable


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    random = np.random.default_rng(0)
    for i in range(24):
        centers = random.uniform(30, 380, (1 + i % 6, 2))
        cv2.imwrite(str(folder / f"{i}.png"), picture_with_spots([tuple(c) for c in centers]))
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = spot_model(tmp_path / "spots.onnx", "yolox", dynamic=True)
    write_recipe(path, "yolox", width=416, height=416)
    return path


def run(command, *arguments):
    result = CliRunner().invoke(command, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_from_pictures_to_table_and_cache(pictures, model, tmp_path):
    told = run(
        calibrate_set, "--source", pictures, "--count", 20, "--out", tmp_path / "set",
        "--model", model,
    )  # fmt: skip
    assert "20 pictures (2 blurred or dark copies) of 24 looked at" in told
    assert "warning: 20 pictures are few" in told
    manifest = json.loads((tmp_path / "set" / "manifest.json").read_text())
    assert manifest["crowded_by"] == "test-model"
    assert max(e["crowding"] for e in manifest["images"]) >= 5

    table = tmp_path / "t.json"
    told = run(
        calibrate, "--model", model, "--images", tmp_path / "set", "--out", table,
        "--method", "percentile", "--percentile", "99.99", "--all-tensors",
    )  # fmt: skip
    made = CalibrationTable.load(table)
    assert f"{len(made.amax)} activations of test-model by percentile, from 20 pictures" in told
    assert (made.method, made.images) == ("percentile", 20)
    assert made.images_sha256 == manifest["sha256"]
    assert made.amax["images"] == pytest.approx(255, abs=1)
    cache = CalibrationTable.from_tensorrt_cache((tmp_path / "t.cache").read_text())
    assert list(cache.amax) == list(made.amax)


def test_only_the_first_few(pictures, model, tmp_path):
    run(calibrate, "--model", model, "--images", pictures, "--out", tmp_path / "t.json",
        "--limit", 3)  # fmt: skip
    made = CalibrationTable.load(tmp_path / "t.json")
    assert made.images == 3


def test_an_unknown_method_is_an_error_of_the_user(pictures, model, tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'minmax'"):
        run(calibrate, "--model", model, "--images", pictures, "--out", tmp_path / "t.json",
            "--method", "minmx")  # fmt: skip
    assert not (tmp_path / "t.json").exists()
