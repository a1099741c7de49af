"""Input shapes of an engine."""

import pytest

from edgecount.errors import ConfigError
from edgecount.infer.recipe import InputRecipe, Recipe
from edgecount.infer.tensorrt.profile import Profile, choose, parse, show

DYNAMIC = ("batch", 3, "height", "width")
RECIPE = Recipe(
    name="m", file="m.onnx", head="ltrb", classes=["head"], input=InputRecipe(width=416, height=320)
)
NONE = (None, None, None)


def test_a_shape_is_read_and_shown() -> None:
    assert parse(" 4x3x1280x640 ") == (4, 3, 1280, 640)
    assert show((4, 3, 1280, 640)) == "4x3x1280x640"


@pytest.mark.parametrize("text", ["416", "3x416x416", "1x1x416x416", "0x3x416x416", "1x3x-1x416"])
def test_what_is_no_shape_is_refused(text) -> None:
    with pytest.raises(ConfigError, match="1x3x416x416"):
        parse(text)


def test_the_recipe_gives_the_usual_shape() -> None:
    assert choose(DYNAMIC, RECIPE, NONE).text == "1x3x320x416"


def test_one_shape_asked_for_is_all_three() -> None:
    shape = (2, 3, 640, 640)
    for asked in ((shape, None, None), (None, shape, None), (None, None, shape)):
        assert choose(DYNAMIC, RECIPE, asked) == Profile(min=shape, opt=shape, max=shape)


def test_a_range_is_kept() -> None:
    profile = choose(DYNAMIC, RECIPE, ((1, 3, 320, 320), (1, 3, 640, 640), (4, 3, 1280, 1280)))
    assert profile.text == "1x3x320x320..1x3x640x640..4x3x1280x1280"
    assert profile.holds((2, 3, 640, 320))
    assert not profile.holds((5, 3, 640, 640))


def test_shapes_out_of_order_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"not in order.*--min"):
        choose(DYNAMIC, RECIPE, ((1, 3, 640, 640), (1, 3, 320, 320), None))


def test_a_fixed_file_leaves_no_choice() -> None:
    static = (1, 3, 416, 416)
    assert choose(static, RECIPE, NONE).text == "1x3x416x416"
    with pytest.raises(ConfigError, match="height is fixed at 416"):
        choose(static, RECIPE, (None, (1, 3, 640, 416), None))
    with pytest.raises(ConfigError, match="batch is fixed at 1"):
        choose(static, RECIPE, (None, None, (4, 3, 416, 416)))


def test_sides_are_multiples() -> None:
    with pytest.raises(ConfigError, match="width 650 is no multiple of 32"):
        choose(DYNAMIC, RECIPE, (None, (1, 3, 640, 650), None))
