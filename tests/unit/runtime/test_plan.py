"""From settings to parts, and what is wrong with them."""

import pytest
from support.onnx_models import spot_model, write_recipe

from edgecount.config import Settings, TileSettings
from edgecount.errors import ConfigError
from edgecount.infer.recipe import model_keys
from edgecount.runtime.overrides import settings_from
from edgecount.runtime.plan import default_settings, prepare


def no_timer(stage, seconds):
    pass


@pytest.fixture(scope="module")
def onnx(tmp_path_factory):
    return spot_model(tmp_path_factory.mktemp("model") / "spots.onnx", "yolox")


def settings(onnx, **changes):
    data = {"model": {"path": str(onnx)}, "cameras": [{"name": "door", "source": "clip.avi"}]}
    return Settings.model_validate({**data, **changes})


def test_a_good_plan_has_a_source_and_a_tracker_for_each_camera(onnx):
    cameras = [{"name": n, "source": f"{n}.avi"} for n in ("a", "b")]
    plan = prepare(settings(onnx, cameras=cameras), no_timer)
    assert [c.settings.name for c in plan.cameras] == ["a", "b"]
    assert [c.spec.name for c in plan.cameras] == ["a", "b"]
    assert plan.cameras[0].spec.tracker_kind == "two_stage"


def test_a_loaded_model_is_taken_over_only_when_the_settings_are_the_same(onnx):
    first = prepare(settings(onnx), no_timer)
    assert prepare(settings(onnx), no_timer, first.model).model is first.model
    other = settings(onnx, model={"path": str(onnx), "nms": "opencv"})
    assert prepare(other, no_timer, first.model).model is not first.model


def test_an_unknown_tracker_names_the_choices(onnx):
    with pytest.raises(ConfigError, match="two_stage"):
        prepare(settings(onnx, tracker={"kind": "two_stge"}), no_timer)


def test_a_wrong_tracker_option_names_camera_and_option(onnx):
    with pytest.raises(ConfigError, match=r"door.*hihg"):
        prepare(settings(onnx, tracker={"hihg": 0.5}), no_timer)


def test_an_unknown_source_names_examples(onnx):
    bad = settings(onnx, cameras=[{"name": "door", "source": "ftp://x/y"}])
    with pytest.raises(ConfigError, match="rtsp://"):
        prepare(bad, no_timer)


def test_heads_that_are_too_small_for_the_model_are_a_warning(tmp_path):
    onnx = spot_model(tmp_path / "small.onnx", "yolox")
    recipe = write_recipe(onnx, "yolox", width=416, height=416)
    recipe.write_text(recipe.read_text() + "smallest_head_px: 12\n")
    line = {"name": "l", "from": [0, 0.5], "to": [1, 0.5]}
    camera = {"name": "door", "source": "clip.avi", "lines": [line], "head_px": 8}
    camera["picture"] = [416, 416]
    (warning,) = prepare(settings(onnx, cameras=[camera]), no_timer).warnings
    assert "8 px" in warning
    assert "12 px" in warning


def test_the_tiles_of_a_camera_reach_the_backend(onnx):
    cameras = [
        {"name": "high", "source": "clip.avi", "tiles": "3x2"},
        {"name": "door", "source": "clip.avi"},
    ]
    high, door = prepare(settings(onnx, cameras=cameras), no_timer).cameras
    assert high.spec.tiles == TileSettings(columns=3, rows=2)
    assert door.spec.tiles is None


def test_without_lines_and_zones_there_is_a_warning(onnx):
    assert "neither lines nor zones" in prepare(settings(onnx), no_timer).warnings[0]


def test_the_default_has_a_line_a_zone_and_keeps_nothing():
    default = default_settings("clip.avi")
    (camera,) = default.cameras
    assert [line.name for line in camera.lines] == ["middle"]
    assert [zone.name for zone in camera.zones] == ["frame"]
    assert not default.ledger.enabled


def test_a_model_is_a_path_unless_it_ships():
    assert model_keys(None) == {}
    assert model_keys("some/where.onnx") == {"path": "some/where.onnx"}


def test_the_command_line_replaces_source_and_model(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("cameras: [{name: door, source: 'usb:0', capture: {width: 640}}]\n")
    changed = settings_from(file, "clip.avi", "mine.onnx", realtime=True)
    assert changed.cameras[0].source == "clip.avi"
    assert changed.cameras[0].capture == {"realtime": True}
    assert str(changed.model.path) == "mine.onnx"


def test_one_source_for_several_cameras_is_refused(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("cameras: [{name: a, source: a.avi}, {name: b, source: b.avi}]\n")
    with pytest.raises(ConfigError, match="2"):
        settings_from(file, "clip.avi", None)


def test_nothing_to_count_is_refused():
    with pytest.raises(ConfigError, match="--source"):
        settings_from(None, None, None)
