import pytest
from support.channel_model import channel_model, plain_picture, recipe

from edgecount.errors import ConfigError
from edgecount.infer.recipe import PrecisionRecipe
from edgecount.toolchain.quantize.activations import gather
from edgecount.toolchain.quantize.calibrate import calibrate, choose, method_of

ALL = ["images", "mixed", "positive", "output"]
PICTURES = [plain_picture(10, 20, 30), plain_picture(100, 50, 0)]


@pytest.fixture
def model(tmp_path):
    return channel_model(tmp_path / "channels.onnx")


def test_minmax_by_hand(model):
    table, histograms = calibrate(
        model, PICTURES, recipe(), "minmax", ALL, images_sha256="of the images"
    )
    assert table.amax == {"images": 100, "mixed": 100, "positive": 100, "output": 200}
    assert (table.method, table.images, table.images_sha256) == ("minmax", 2, "of the images")
    assert len(table.model_sha256) == 64
    assert table.input == {**recipe().input.model_dump(mode="json")}
    assert {name: seen.amax for name, seen in histograms.items()} == table.amax


def test_percentile_by_hand(model):
    # Half of the values of "positive" are 0, a quarter 10, a quarter 100.
    options = {"percentile": 75.0}
    table, histograms = calibrate(
        model, PICTURES, recipe(), "percentile", ["positive"], options=options
    )
    assert 10 <= table.amax["positive"] <= 10 + histograms["positive"].width


def test_one_pass_serves_every_method(model):
    gathered = gather(model, PICTURES, recipe(), ALL)
    for method in ("entropy", "minmax", "percentile"):
        table, _ = choose(gathered, method)
        assert table == calibrate(model, PICTURES, recipe(), method, ALL)[0]


def test_a_dead_activation_is_told_and_gets_a_scale(tmp_path):
    model = channel_model(tmp_path / "m.onnx", first=((-1, 0, 0), (0, -2, 0)))
    told = []
    table, _ = calibrate(model, PICTURES, recipe(), "entropy", ALL, notice=told.append)
    assert [text.split(" is dead")[0] for text in told] == [
        "activation 'positive' of Relu node 'act'",
        "activation 'output' of Conv node 'double'",
    ]
    assert table.amax["positive"] == 1.0


def test_a_mistake_is_told_before_pictures_are_read(model):
    def pictures():
        raise AssertionError("was read")
        yield

    for method, options, text in [
        ("entrpy", {}, "did you mean 'entropy'"),
        ("percentile", {"percentile": 101}, "percentile"),
        ("minmax", {"percentile": 99}, "percentile"),
    ]:
        with pytest.raises(ConfigError, match=text):
            calibrate(model, pictures(), recipe(), method, options=options)


def test_the_recipe_names_the_method_unless_one_is_asked_for():
    plain = recipe()
    wanted = PrecisionRecipe(calibrator="percentile", percentile=99.5)
    tuned = plain.model_copy(update={"precision": wanted})
    assert method_of(plain) == ("entropy", {})
    assert method_of(tuned) == ("percentile", {"percentile": 99.5})
    assert method_of(tuned, percentile=99.0) == ("percentile", {"percentile": 99.0})
    assert method_of(tuned, "minmax") == ("minmax", {})
    assert method_of(plain, "percentile") == ("percentile", {})
