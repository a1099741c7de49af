import weakref
from pathlib import Path

import numpy as np
import onnx
import pytest
from support.channel_model import SIDE, channel_model, plain_picture, recipe

from edgecount.errors import DatasetError, ModelError
from edgecount.infer.detector import OnnxDetector, Thresholds
from edgecount.toolchain.quantize.activations import GatherSettings, gather
from edgecount.toolchain.quantize.watched import WatchedNetwork

ALL = ["images", "mixed", "positive", "output"]
PIXELS = SIDE * SIDE


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return channel_model(tmp_path / "channels.onnx")


def noise(count: int):
    random = np.random.default_rng(4)
    sizes = [(20, 30), (32, 32), (64, 40)]
    return [random.integers(0, 256, (*sizes[i % 3], 3)).astype(np.uint8) for i in range(count)]


def bin_of(seen, value):
    return int(value / seen.width)


def test_every_value_by_hand(model):
    pictures = [plain_picture(10, 20, 30), plain_picture(100, 50, 0)]
    seen = gather(model, pictures, recipe(), ALL).histograms
    assert list(seen) == ALL
    expected = {
        "images": {10: 1, 20: 1, 30: 1, 100: 1, 50: 1, 0: 1},
        "mixed": {10: 1, 40: 1, 100: 2},
        "positive": {10: 1, 100: 1, 0: 2},
        "output": {20: 1, 200: 1},
    }
    for name, values in expected.items():
        counts = np.zeros_like(seen[name].counts)
        for value, times in values.items():
            counts[bin_of(seen[name], value)] += times * PIXELS
        assert seen[name].counts.tolist() == counts.tolist(), name
    assert (seen["mixed"].smallest, seen["mixed"].largest) == (-100, 100)
    assert (seen["images"].smallest, seen["images"].largest) == (0, 100)


def test_pictures_are_prepared_by_the_detector_itself(model):
    ours = recipe(color="rgb", scale=1 / 255, mean=(1.0, 2.0, 3.0), pad=7.0)
    picture = noise(1)[0]
    network = WatchedNetwork(onnx.load(str(model)), [])
    detector = OnnxDetector(network, ours, size=(SIDE, SIDE), thresholds=Thresholds(0.1, 0.6))
    fed = detector.network_input(picture)
    seen = gather(model, [picture], ours, ["images"]).histograms["images"]
    assert (seen.smallest, seen.largest) == (fed.min(), fed.max())
    edges = np.arange(len(seen.counts) + 1) * seen.width
    assert seen.counts.tolist() == np.histogram(np.abs(fed.astype(float)), edges)[0].tolist()


@pytest.mark.parametrize(
    "settings",
    [
        GatherSettings(batch=3),
        GatherSettings(batch=50),
        GatherSettings(workers=1),
        GatherSettings(workers=5, batch=2),
        GatherSettings(memory_mib=0),
    ],
    ids=str,
)
def test_batches_and_workers_do_not_matter(model, settings):
    wanted = gather(model, noise(11), recipe(), ALL, GatherSettings(workers=1))
    found = gather(model, iter(noise(11)), recipe(), ALL, settings)
    assert found.images == 11
    for name in ALL:
        a, b = wanted.histograms[name], found.histograms[name]
        assert a.counts.tolist() == b.counts.tolist()
        assert (a.width, a.smallest, a.largest) == (b.width, b.smallest, b.largest)


def test_a_model_of_one_picture_gets_one_at_a_time(tmp_path):
    model = channel_model(tmp_path / "channels.onnx", batch=1)
    assert gather(model, noise(5), recipe(), settings=GatherSettings(batch=4)).images == 5


def test_another_size_is_written_down(tmp_path):
    model = channel_model(tmp_path / "channels.onnx")
    assert gather(model, noise(1), recipe()).input["width"] == SIDE
    with pytest.raises(Exception, match="fixed input"):
        gather(model, noise(1), recipe(), settings=GatherSettings(size=(64, 64)))


def test_what_readers_read_is_watched_unless_told(model):
    assert list(gather(model, noise(1), recipe()).histograms) == ["images", "positive"]


def test_progress_counts_pictures(model):
    told = []
    gather(model, noise(5), recipe(), settings=GatherSettings(batch=2), progress=told.append)
    assert sorted(told) == told
    assert told[-1] == 5


def test_no_picture_at_all(model):
    with pytest.raises(DatasetError, match="no picture"):
        gather(model, [], recipe())


def test_an_error_of_the_pictures_comes_through(model):
    def pictures():
        yield from noise(3)
        raise DatasetError("the card is full")

    with pytest.raises(DatasetError, match="the card is full"):
        gather(model, pictures(), recipe())


@pytest.mark.parametrize("batch", [1, 4])
def test_nan_names_the_first_tensor_its_node_and_the_picture(tmp_path, batch):
    # 0 × inf: only where blue is 0.
    model = channel_model(tmp_path / "m.onnx", second=((np.inf, 0),))
    pictures = [plain_picture(0, 1, 0)]
    with pytest.raises(
        DatasetError, match=r"'output' of Conv node 'double'.* picture 0 "
    ) as caught:
        gather(model, pictures, recipe(), ALL, GatherSettings(batch=batch))
    assert "'mixed'" not in str(caught.value)


def test_nan_names_the_picture_within_a_batch(tmp_path):
    # Relu keeps out what would be infinite, but for the third picture.
    big = 3e38
    model = channel_model(tmp_path / "m.onnx", second=((big, 0),))
    pictures = [plain_picture(v, 0, 0) for v in (0, 1, 2, 1, 1)]
    with pytest.raises(DatasetError, match="for picture 2 "):
        gather(model, pictures, recipe(), ALL, GatherSettings(batch=4, workers=1))


def test_a_file_is_needed_to_fit_its_recipe(tmp_path):
    wide = recipe().model_copy(update={"input": recipe().input.model_copy(update={"width": 64})})
    with pytest.raises(ModelError, match="fixed input width of 32"):
        gather(channel_model(tmp_path / "m.onnx"), noise(1), wide)


def test_memory_does_not_grow_with_the_pictures(model):
    alive, most = set(), 0

    def pictures():
        nonlocal most
        for i in range(60):
            picture = np.full((SIDE, SIDE, 3), i, np.uint8).view(_Weak)
            alive.add(i)
            weakref.finalize(picture, alive.discard, i)
            most = max(most, len(alive))
            yield picture

    gather(model, pictures(), recipe(), settings=GatherSettings(workers=3, batch=2))
    assert most <= 2 * 3 + 2


class _Weak(np.ndarray):
    """An array that can be watched."""
