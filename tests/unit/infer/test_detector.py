"""The detector as a whole, on tiny models."""

from pathlib import Path

import numpy as np
import pytest
from support import onnx_models
from support.onnx_models import Box

from edgecount.config import ModelSettings
from edgecount.infer import detector
from edgecount.infer.onnxruntime import open_network


@pytest.mark.parametrize("layout", onnx_models.LAYOUTS)
def test_spots_of_a_picture_are_found_in_every_layout(tmp_path: Path, layout: str) -> None:
    model = onnx_models.spot_model(tmp_path / "spots.onnx", layout)
    onnx_models.write_recipe(model, layout, width=416, height=416)
    built, recipe = detector.create(ModelSettings(path=model), open_network)

    found = built.detect([onnx_models.picture_with_spots([(300, 60), (100, 204)])])[0]

    assert recipe.head == layout
    centers = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
    assert np.abs(centers[np.argsort(centers[:, 0])] - [(100, 204), (300, 60)]).max() <= 4
    assert found.scores.min() > 0.9


@pytest.mark.parametrize("layout", onnx_models.LAYOUTS)
def test_known_boxes_come_out(tmp_path: Path, layout: str) -> None:
    boxes = [Box(10, 12, 30, 40, 0.9), Box(40, 20, 56, 50, 0.6)]
    model = onnx_models.constant_model(tmp_path / "known.onnx", layout, boxes)
    onnx_models.write_recipe(model, layout, width=64, height=64)
    built, _ = detector.create(ModelSettings(path=model), open_network)

    found = built.detect([np.zeros((128, 128, 3), np.uint8)])[0]

    np.testing.assert_allclose(found.boxes, [[20, 24, 60, 80], [80, 40, 112, 100]], atol=1e-3)
    np.testing.assert_allclose(found.scores, [0.9, 0.6], atol=1e-6)
