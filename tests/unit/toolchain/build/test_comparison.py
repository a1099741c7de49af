"""How far one form of a model is from another."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from support import conv_models, onnx_models

from edgecount.cli.main import cli
from edgecount.errors import ConfigError, ModelError
from edgecount.infer import recipe as recipes
from edgecount.infer.onnxruntime import open_network
from edgecount.records import Detections
from edgecount.toolchain.build import comparison
from edgecount.toolchain.build.comparison import compare, made_up_pictures
from edgecount.toolchain.quantize import graph as graphs
from edgecount.toolchain.quantize.equalize import equalise
from edgecount.toolchain.quantize.half import to_half


@pytest.fixture
def model(tmp_path) -> Path:
    path = conv_models.yolov8_like(tmp_path / "m.onnx")
    onnx_models.write_recipe(path, "yolov8", classes=("head", "hat"), width=96, height=64)
    return path


def sibling(model: Path, name: str) -> Path:
    """Another file of the same model, with its recipe."""
    path = model.with_name(f"{name}.onnx")
    recipe = model.with_suffix(".recipe.yaml")
    shutil.copy(recipe, path.with_suffix(".recipe.yaml"))
    return path


def test_a_model_is_the_same_as_itself(model) -> None:
    found = compare(model, model, made_up_pictures(2))
    assert found.pictures == 2
    assert len(found.layers) > 10
    assert all(d.largest == 0.0 and d.relative == 0.0 for d in (*found.layers, found.output))
    assert found.output.cosine == pytest.approx(1.0)
    assert found.detections.only_reference == found.detections.only_other == 0
    assert found.detections.mean_iou == pytest.approx(1.0)


def test_half_precision_is_near_and_every_layer_is_seen(model) -> None:
    other = sibling(model, "half")
    onnx.save(to_half(onnx.load(str(model))), str(other))
    found = compare(model, other, made_up_pictures(2))
    names = [d.made_by for d in found.layers]
    assert names[0] == "backbone.0 (Conv)"
    assert 0 < found.output.relative < 0.01
    assert all(d.cosine > 0.999 for d in found.layers)


def test_channels_that_were_evened_out_are_no_difference(tmp_path) -> None:
    model = conv_models.yolov8_like(tmp_path / "m.onnx", relu=True)
    onnx_models.write_recipe(model, "yolov8", classes=("head", "hat"), width=96, height=64)
    pictures = list(made_up_pictures(2))
    even = equalise(onnx.load(str(model)), pictures, recipes.find(None, model)[1])
    weights = [graphs.weights(m)["backbone.1.weight"] for m in (onnx.load(str(model)), even)]
    assert not np.array_equal(*weights)
    other = sibling(model, "even")
    onnx.save(even, str(other))
    found = compare(model, other, pictures)
    assert all(d.relative < 1e-6 for d in (*found.layers, found.output))
    assert len(found.layers) > 10


def test_a_bad_scale_shows_first_where_it_is(model) -> None:
    other = conv_models.with_qdq(model, sibling(model, "coarse"), activation=0.5)
    found = compare(model, other, made_up_pictures(2))
    assert found.output.relative > 0.05
    assert found.worst(3)[0].relative >= found.worst(3)[2].relative
    made_by = {d.made_by for d in found.layers}
    assert not any("QuantizeLinear" in name for name in made_by)


def test_an_exact_difference(tmp_path) -> None:
    answers = [np.full((84, 6), v, np.float32) for v in (2.0, 2.5)]
    files = []
    for name, answer in zip("ab", answers):
        path = onnx_models.answer_model(tmp_path / f"{name}.onnx", answer)
        onnx_models.write_recipe(path, "yolox", width=64, height=64)
        files.append(path)
    output = compare(*files, made_up_pictures(1)).output
    assert output.largest == pytest.approx(0.5)
    assert output.relative == pytest.approx(0.25)
    assert output.cosine == pytest.approx(1.0)


def test_an_engine_is_compared_at_its_output(model, monkeypatch) -> None:
    engine = model.with_suffix(".engine")
    shutil.copy(model, engine)
    monkeypatch.setattr(comparison.host, "open_network", open_network)
    found = compare(model, engine, made_up_pictures(1))
    assert found.layers == ()
    assert found.output.largest == 0.0
    with pytest.raises(ConfigError, match="swap the two"):
        compare(engine, model, made_up_pictures(1))


def test_different_sizes_and_no_pictures_are_refused(model) -> None:
    other = model.with_name("larger.onnx")
    shutil.copy(model, other)
    onnx_models.write_recipe(other, "yolov8", classes=("head", "hat"), width=96, height=96)
    with pytest.raises(ConfigError, match="different input sizes"):
        compare(model, other, made_up_pictures(1))
    with pytest.raises(ConfigError, match="no pictures"):
        compare(model, model, [])


def test_a_file_that_is_none(model) -> None:
    model.write_bytes(b"nothing")
    with pytest.raises(ModelError):
        compare(model, model, made_up_pictures(1))


def boxes(*rows) -> Detections:
    table = np.asarray(rows, np.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].astype(np.int32))


def test_detections_are_matched_by_class_and_overlap() -> None:
    reference = boxes((0, 0, 10, 10, 0.9, 0), (20, 20, 30, 30, 0.8, 0), (50, 50, 60, 60, 0.7, 1))
    other = boxes((0, 0, 10, 8, 0.8, 0), (20, 20, 30, 30, 0.8, 1), (90, 90, 99, 99, 0.7, 0))
    found = comparison._detections([(reference, other)])
    assert (found.both, found.only_reference, found.only_other) == (1, 2, 2)
    assert found.mean_iou == pytest.approx(0.8)
    assert found.largest_score == pytest.approx(0.1, abs=1e-6)


def test_made_up_pictures_are_always_the_same() -> None:
    first, second = (list(made_up_pictures(2)) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second))
    assert first[0].shape == (480, 640, 3)
    assert not np.array_equal(first[0], first[1])


def test_the_command(model) -> None:
    result = CliRunner().invoke(cli, ["compare", str(model), str(model), "--json"])
    assert result.exit_code == 0
    # Old versions of click mix in what went to stderr.
    data = json.loads(result.stdout[result.stdout.index("{") :])
    assert data["output"]["largest"] == 0.0
    result = CliRunner().invoke(cli, ["compare", str(model), str(model), "--limit", "1"])
    assert "1 pictures" in result.stdout
    assert "0 only in the reference, 0 only in the other" in result.stdout
