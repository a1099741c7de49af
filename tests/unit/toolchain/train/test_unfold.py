"""An exported file becomes a network that can go on learning."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxslim")

from edgecount.errors import ModelError  # noqa: E402
from edgecount.toolchain.train.export import export_onnx  # noqa: E402
from edgecount.toolchain.train.model import Detector  # noqa: E402
from edgecount.toolchain.train.recipe import TrainRecipe  # noqa: E402
from edgecount.toolchain.train.unfold import unfold  # noqa: E402

RECIPE = TrainRecipe.model_validate(
    {
        "name": "tiny",
        "size": 64,
        "model": {"neck_width": [16, 24, 32], "neck_depth": 0, "head_width": 16},
    }
)


def _network(seed):
    torch.manual_seed(seed)
    network = Detector(RECIPE.model, 1)
    with torch.no_grad():  # norms that have seen something
        for _ in range(3):
            network.train()(torch.rand(4, 3, 64, 64) * 255)
    return network.eval()


def test_it_computes_what_the_file_computes_with_norms_that_fit(tmp_path):
    first = _network(1)
    path = tmp_path / "tiny.onnx"
    export_onnx(first, path, RECIPE)
    second = _network(2)
    torch.manual_seed(3)
    pictures = torch.rand(8, 3, 64, 64) * 255
    unfold(path, second, [pictures[:4], pictures[4:]])
    with torch.no_grad():
        torch.testing.assert_close(second(pictures), first(pictures), atol=2e-3, rtol=1e-3)
        seen = []
        hook = second.backbone.stem.bn.register_forward_hook(lambda m, a, out: seen.append(out))
        second(pictures)
        second.train()(pictures)  # the batch's own statistics are those that were stored
        hook.remove()
    torch.testing.assert_close(seen[1], seen[0], atol=0.05, rtol=0.01)


def test_another_network_is_refused(tmp_path):
    path = tmp_path / "tiny.onnx"
    export_onnx(_network(1), path, RECIPE)
    wide = RECIPE.model.model_copy(update={"head_width": 24})
    with pytest.raises(ModelError, match="another network"):
        unfold(path, Detector(wide, 1), [torch.zeros(1, 3, 64, 64)])
