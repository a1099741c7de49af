"""Whole runs on drawn pictures, on a CPU."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("pycocotools")

from edgecount.config import ModelSettings  # noqa: E402
from edgecount.errors import ConfigError, ModelError  # noqa: E402
from edgecount.infer.detector import create  # noqa: E402
from edgecount.infer.onnxruntime import open_network  # noqa: E402
from edgecount.toolchain.train.dataset import load_pictures  # noqa: E402
from edgecount.toolchain.train.export import export_onnx, restore  # noqa: E402
from edgecount.toolchain.train.labels import relabel  # noqa: E402
from edgecount.toolchain.train.model import Detector  # noqa: E402
from edgecount.toolchain.train.prune import exact_ratio, prune, size_of  # noqa: E402
from edgecount.toolchain.train.recipe import LabelSpec, TrainRecipe, load_recipe  # noqa: E402
from edgecount.toolchain.train.taught import Master  # noqa: E402
from edgecount.toolchain.train.trainer import Trainer  # noqa: E402
from edgecount.toolchain.train.validate import validate  # noqa: E402
from edgecount.toolchain.yolo_files import find_pairs  # noqa: E402

SMALL = {
    "backbone": "plain",
    "backbone_options": {"channels": [8, 16, 16, 24, 32], "depth": [1, 1, 1, 1]},
    "neck_width": [16, 24, 32],
    "neck_depth": 0,
    "head_width": 16,
}
STILL = {
    "layout": [1, 0, 0],
    "scale_1": [0.95, 1.05],
    "stretch": [1, 1.0001],
    "tilt": 0,
    "paste": 0,
    "plain": 0,
    "colour": 0,
    "degrade": 0,
    "calm": 1,
}


def _recipe(epochs=2, **more):
    schedule = {"epochs": epochs, "batch": 8, "sizes": [128], "lr": 0.01, "ema": 0.9}
    return TrainRecipe.model_validate(
        {
            "name": "tiny",
            "cache": 128,
            "size": 128,
            "model": SMALL,
            "augment": STILL,
            "schedule": schedule,
            **more,
        }
    )


def _trainer(recipe, folder):
    torch.manual_seed(recipe.schedule.seed)
    data = load_pictures(find_pairs(folder), recipe.cache, 1, torch.device("cpu"))
    return Trainer(recipe, Detector(recipe.model, 1), data, None)


@pytest.mark.timeout(300)  # half a minute on two idle cores
def test_learns_eight_pictures_by_heart(drawn):
    recipe = _recipe(epochs=90)
    trainer = _trainer(recipe, drawn(8))
    assert trainer.run(lambda progress: None)
    assert validate(trainer.ema, trainer.data, 128)["ap50"] > 0.9
    assert trainer.history[-1].losses["box"] < trainer.history[0].losses["box"]


def test_a_run_in_two_pieces_has_the_history_of_one(drawn, tmp_path):
    folder = drawn(8)
    checkpoint = tmp_path / "checkpoint.pt"
    first = _trainer(_recipe(epochs=4), folder)
    assert not first.run(lambda progress: None, checkpoint, until=2)
    second = _trainer(_recipe(epochs=4), folder)
    second.resume(checkpoint)
    assert second.step == first.step
    assert second.run(lambda progress: None, checkpoint)
    assert [p.epoch for p in second.history] == [1, 2, 3, 4]
    whole = _trainer(_recipe(epochs=4), folder)
    whole.run(lambda progress: None)
    # random numbers after the resume are those of an uninterrupted run
    assert second.history[-1].losses == pytest.approx(whole.history[-1].losses, rel=1e-3)


def test_an_interrupt_saves_a_checkpoint_that_can_be_resumed(drawn, tmp_path):
    folder, checkpoint = drawn(8), tmp_path / "checkpoint.pt"

    def interrupt(progress):
        raise KeyboardInterrupt

    trainer = _trainer(_recipe(epochs=3), folder)
    assert not trainer.run(interrupt, checkpoint, every=100)
    again = _trainer(_recipe(epochs=3), folder)
    again.resume(checkpoint)
    assert again.step == 1


def test_a_checkpoint_of_another_network_is_refused(drawn, tmp_path):
    folder, checkpoint = drawn(2), tmp_path / "checkpoint.pt"
    _trainer(_recipe(), folder).save(checkpoint)
    other = _trainer(_recipe(model=dict(SMALL, head_width=24)), folder)
    with pytest.raises(ModelError, match="another recipe"):
        other.resume(checkpoint)


def test_relabelling_adds_what_the_network_sees_and_nobody_labelled(drawn):
    folder = drawn(8)
    trainer = _trainer(_recipe(epochs=90), folder)
    trainer.run(lambda progress: None)
    classes = trainer.data.classes
    classes[0, 0] = -1  # forget one label
    original = classes.clone()
    lenient = LabelSpec(add_above=0.1, ignore_above=0.05)
    found = relabel(trainer.ema, trainer.data, original, lenient)
    assert found.added + found.ignored >= 1
    kinds = trainer.data.classes[0]
    assert ((kinds >= 0) | (kinds == -2)).sum() >= 2


def test_the_exported_file_computes_what_the_network_computes(drawn, tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxslim")
    checkpoint = tmp_path / "checkpoint.pt"
    trainer = _trainer(_recipe(), drawn(4))
    trainer.run(lambda progress: None, checkpoint)
    recipe, model = restore(checkpoint)
    path = tmp_path / "tiny.onnx"
    assert export_onnx(model, path, recipe) < 1e-4
    # The file alone is enough to run it.
    detector, running = create(ModelSettings(path=path), open_network)
    assert (running.head, running.classes) == ("ltrb", recipe.classes)
    assert detector.detect([np.zeros((90, 160, 3), np.uint8)])[0].boxes.shape[1] == 4
    graph = onnx.load(str(path)).graph
    assert all(n.name.split(".")[0] in ("backbone", "neck", "head") for n in graph.node)
    assert not [n for n in graph.node if n.op_type == "BatchNormalization"]
    axes = [d.dim_param or d.dim_value for d in graph.input[0].type.tensor_type.shape.dim]
    assert axes == ["batch", 3, "height", "width"]


def test_distances_are_never_negative():
    model = Detector(_recipe().model, 3).eval()
    with torch.no_grad():
        output = model(torch.rand(2, 3, 64, 96) * 255)
    assert output.shape == (2, 7, 8 * 12 + 4 * 6 + 2 * 3)
    assert (output[:, :4] >= 0).all()


def test_a_narrower_network_in_half_precision_is_restored_in_full(tmp_path):
    pytest.importorskip("torch_pruning")
    small = prune(Detector(_recipe().model, 1), 0.5, 64)
    halved = {k: v.half() if v.is_floating_point() else v for k, v in small.state_dict().items()}
    state = {"recipe": _recipe().model_dump(mode="json"), "ema": halved}
    torch.save(state, tmp_path / "half.pt")
    _, again = restore(tmp_path / "half.pt")
    assert {p.dtype for p in again.parameters()} == {torch.float32}
    name = next(k for k in halved if k.endswith("running_var"))
    halved[name][0] = float("inf")
    torch.save(state, tmp_path / "half.pt")
    with pytest.raises(ModelError, match=f"{name} has values that are not finite"):
        restore(tmp_path / "half.pt")


def test_pruning_removes_channels_and_the_rest_restores(drawn, tmp_path):
    pytest.importorskip("torch_pruning")
    model = Detector(_recipe().model, 1).eval()
    small = prune(model, 0.5, 64)
    assert size_of(small, 64).macs < 0.6 * size_of(model, 64).macs
    assert small(torch.zeros(1, 3, 64, 64)).shape == model(torch.zeros(1, 3, 64, 64)).shape
    trainer = _trainer(_recipe(), drawn(2))
    pruned = Trainer(trainer.recipe, small, trainer.data, None)
    pruned.save(tmp_path / "pruned.pt")
    _, again = restore(tmp_path / "pruned.pt")
    image = torch.rand(1, 3, 64, 64) * 255
    with torch.no_grad():
        np.testing.assert_allclose(again(image), pruned.ema(image), atol=1e-5)


@pytest.mark.parametrize(("channels", "left"), [(16, 16), (24, 24), (32, 24), (64, 48), (48, 40)])
def test_what_pruning_keeps_is_rounded_up(channels, left):
    assert int(channels * (1 - exact_ratio(channels, 0.3))) == left


def test_a_master_labels_the_set_and_is_learned_from(drawn, tmp_path):
    folder = drawn(8)
    teacher = _trainer(_recipe(epochs=60), folder)
    teacher.run(lambda progress: None)
    recipe = _recipe(
        epochs=12, labels={"relabel_at": [0.5], "add_above": 0.1, "ignore_above": 0.05}
    )
    torch.manual_seed(1)
    data = load_pictures(find_pairs(folder), recipe.cache, 1, torch.device("cpu"))
    data.classes.fill_(-1)  # nobody labelled anything
    master = Master(teacher.ema, forgive_above=0.3)
    trainer = Trainer(recipe, Detector(recipe.model, 1), data, None, master=master)
    assert trainer.run(lambda progress: None)
    assert int((data.classes != -1).sum()) >= 8
    assert trainer.history[-1].losses["master"] < trainer.history[0].losses["master"]


def test_the_last_part_of_a_run_is_calm(drawn):
    trainer = _trainer(_recipe(epochs=4, augment=dict(STILL, calm=0.25)), drawn(8))
    seen = []
    trainer.run(lambda progress: seen.append(float(trainer._calm)))
    assert seen == [0, 0, 0, 1]


@pytest.mark.parametrize(
    "name",
    [
        "head-n",
        "head-s",
        "backbone-plain",
        "backbone-csp",
        "backbone-mobilenetv3-small",
        "backbone-efficientnet-lite0",
        "backbone-resnet18",
    ],
)
def test_every_shipped_recipe_builds_a_network(name):
    recipe = load_recipe(name)
    model = Detector(recipe.model, len(recipe.classes)).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 5, 64 + 16 + 4)


def test_head_n_keeps_its_limits():
    size = size_of(Detector(load_recipe("head-n").model, 1), 416)
    assert size.parameters <= 1.2e6
    assert 2 * size.macs <= 0.8e9


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(ConfigError, match="head-n"):
        load_recipe("head-m")


def test_history_is_plain_data(drawn):
    from dataclasses import asdict

    trainer = _trainer(_recipe(epochs=1), drawn(2))
    trainer.run(lambda progress: None)
    assert json.loads(json.dumps([asdict(p) for p in trainer.history]))[0]["epoch"] == 1
