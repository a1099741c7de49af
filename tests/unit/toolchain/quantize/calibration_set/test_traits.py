import cv2
import numpy as np
import pytest

from edgecount.toolchain.quantize.calibration_set import spoil
from edgecount.toolchain.quantize.calibration_set.traits import look_at


def scene(people=5, seed=0, width=320, height=240):
    random = np.random.default_rng(seed)
    picture = np.full((height, width, 3), (150, 140, 130), np.uint8)
    for _ in range(people):
        x, y = int(random.integers(20, width - 20)), int(random.integers(20, height - 40))
        cv2.circle(picture, (x, y), 9, (90, 120, 170), -1)
        cv2.rectangle(picture, (x - 10, y + 9), (x + 10, y + 35), (60, 60, 60), -1)
    return picture


def test_luma_is_the_mean_brightness():
    assert look_at(np.full((50, 80, 3), 77, np.uint8)).traits.luma == pytest.approx(77, abs=1)


def test_a_blurred_picture_is_less_sharp_whatever_its_light():
    sharp = look_at(scene()).traits.sharpness
    blurred = look_at(spoil.blurred(scene(), np.random.default_rng(1))).traits.sharpness
    dim = look_at((scene() // 3).astype(np.uint8)).traits.sharpness
    assert blurred < sharp / 2
    assert dim == pytest.approx(sharp, rel=0.1)


def test_more_people_make_more_edges():
    edges = [look_at(scene(people=n)).traits.edges for n in (0, 4, 20)]
    assert edges == sorted(edges)
    assert edges[0] == 0


def test_size_hardly_matters():
    small, large = look_at(scene()), look_at(cv2.resize(scene(), (1280, 960)))
    apart = np.linalg.norm(small.embedding - look_at(scene(seed=1)).embedding)
    assert np.linalg.norm(small.embedding - large.embedding) < apart / 2


def test_what_looks_alike_is_near():
    here = look_at(scene()).embedding
    noise = np.random.default_rng(2).integers(-2, 3, (240, 320, 3))
    again = look_at(np.clip(scene() + noise, 0, 255).astype(np.uint8)).embedding
    elsewhere = look_at(scene(seed=9)).embedding
    night = look_at((scene() // 4).astype(np.uint8)).embedding
    distances = [np.linalg.norm(here - other) for other in (again, elsewhere, night)]
    assert distances == sorted(distances)
    assert distances[0] < distances[1] / 2


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (2000, 3), (16, 16)])
def test_any_shape_gives_numbers(shape):
    look = look_at(np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8))
    assert np.isfinite(look.embedding).all()
    assert look.embedding.dtype == np.float32
    assert look.embedding.shape == look_at(scene()).embedding.shape


class TestSpoil:
    @pytest.mark.parametrize("how", [spoil.blurred, spoil.darkened])
    def test_same_random_numbers_same_picture(self, how):
        first, second, other = (how(scene(), np.random.default_rng(s)) for s in (1, 1, 2))
        assert (first == second).all()
        assert (first != other).any()
        assert first.shape == scene().shape
        assert first.dtype == np.uint8

    def test_dark_is_dark_and_keeps_its_shapes(self):
        dark = spoil.darkened(scene(), np.random.default_rng(0))
        assert dark.mean() < 0.45 * scene().mean()
        assert np.corrcoef(dark.ravel(), scene().ravel())[0, 1] > 0.5

    def test_blur_keeps_the_light(self):
        blurred = spoil.blurred(scene(), np.random.default_rng(0))
        assert blurred.mean() == pytest.approx(scene().mean(), abs=2)
