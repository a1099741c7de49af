import pytest
from support.onnx_models import spot_model, write_recipe

from edgecount.config import CameraSettings, Settings
from edgecount.toolchain.doctor import model


@pytest.mark.parametrize(
    ("more", "pictures"),
    [({}, 25), ({"max_fps": 10}, 10), ({"tiles": "2x2"}, 100), ({"tiles": "2x2", "fps": 5}, 20)],
)
def test_each_tile_is_a_picture_for_the_network(more, pictures):
    camera = CameraSettings(name="door", source="usb:0", **more)
    assert model.pictures_per_second(camera) == pictures


def test_a_model_that_does_not_load_tells_of_no_head_size(tmp_path):
    cameras = [{"name": "door", "source": "usb:0"}]
    gone = Settings.model_validate({"model": {"path": tmp_path / "no.onnx"}, "cameras": cameras})
    assert model.sight_of(gone) is None
    onnx = spot_model(tmp_path / "spots.onnx", "yolox")
    recipe = write_recipe(onnx, "yolox", width=416, height=416)
    recipe.write_text(recipe.read_text() + "smallest_head_px: 9\n")
    there = Settings.model_validate({"model": {"path": onnx}, "cameras": cameras})
    sight = model.sight_of(there)
    assert sight is not None
    assert sight.smallest == 9
