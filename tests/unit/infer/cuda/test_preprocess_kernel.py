"""The preprocessing kernel, emulated on a CPU, against the detector's own preparation."""

from typing import Any, List

import numpy as np
import pytest
from support.cuda_emulator import emulator
from support.pictures import Picture, PreprocessRun, expected, picture

from edgecount.errors import EngineError, ModelError
from edgecount.infer.cuda.preprocess import KERNELS, SOURCE, Preprocess
from edgecount.infer.letterbox import Letterbox
from edgecount.infer.recipe import InputRecipe


@pytest.fixture(scope="module")
def device() -> emulator.Device:
    return emulator.Device()


def load(device: emulator.Device, name: str, defines: Any) -> emulator.Module:
    return device.compile(name, KERNELS, defines)


def mixed(random: np.random.Generator) -> List[Picture]:
    """Larger, smaller, equal, upright, wide, one pixel wide, one row high."""
    return [
        picture(311, 97, "bgr", random),
        picture(31, 40, "bgr", random, pitch=101),
        picture(96, 64, "bgr", random),
        picture(48, 200, "nv12", random),
        picture(200, 100, "nv12", random, pitch=224, standard="bt709"),
        picture(192, 128, "bgr", random),
        picture(1, 64, "bgr", random),
        picture(77, 1, "bgr", random),
        picture(2, 2, "nv12", random),
    ]


INPUTS = [
    InputRecipe(width=96, height=64),
    InputRecipe(width=96, height=64, color="rgb", scale=1 / 255, mean=(10.0, 20.0, 30.0), pad=0.0),
]


@pytest.mark.parametrize("input_", INPUTS)
@pytest.mark.parametrize("variant", [(2, 2), (1, 4), (4, 1)])
def test_as_the_reference(device: emulator.Device, input_: InputRecipe, variant: Any) -> None:
    pictures = mixed(np.random.default_rng(4))
    pixels, steps = variant
    run = PreprocessRun(
        device,
        device.stream(1),
        pictures,
        input_,
        np.float32,
        load=load,
        pixels=pixels,
        steps=steps,
    )
    found, wanted = run.run(), expected(pictures, input_)
    levels = np.abs(found - wanted) / input_.scale
    assert levels.max() <= 1.001
    assert levels.mean() < 0.05  # most are equal: it is the same arithmetic


def test_without_resizing_it_is_exact(device: emulator.Device) -> None:
    random = np.random.default_rng(5)
    pictures = [picture(96, 64, "bgr", random), picture(96, 64, "nv12", random)]
    run = PreprocessRun(device, device.stream(), pictures, INPUTS[1], np.float32, load=load)
    assert (run.run() == expected(pictures, INPUTS[1])).all()


def test_half_precision_is_the_rounded_value(device: emulator.Device) -> None:
    random = np.random.default_rng(6)
    pictures = [picture(96, 64, "bgr", random)]
    run = PreprocessRun(device, device.stream(), pictures, INPUTS[1], np.float16, load=load)
    assert (run.run() == expected(pictures, INPUTS[1]).astype(np.float16)).all()


def test_int8_is_the_quantised_value(device: emulator.Device) -> None:
    random = np.random.default_rng(7)
    pictures = [picture(96, 64, "bgr", random)]
    step = np.float32(0.9 / 127)
    run = PreprocessRun(
        device, device.stream(), pictures, INPUTS[1], np.int8, step=float(step), load=load
    )
    wanted = np.clip(np.rint(expected(pictures, INPUTS[1]) / step), -128, 127)
    assert (run.run() == wanted).all()
    assert (wanted == 127).any()


def test_what_it_cannot_make_is_refused(device: emulator.Device) -> None:
    with pytest.raises(ModelError, match="multiple of 2"):
        Preprocess(device, INPUTS[0], size=(95, 64), dtype=np.float32, load=load)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="uint8"):
        Preprocess(device, INPUTS[0], size=(96, 64), dtype=np.uint8, load=load)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="step"):
        Preprocess(device, INPUTS[0], size=(96, 64), dtype=np.int8, load=load)  # type: ignore[arg-type]
    made = Preprocess(device, INPUTS[0], size=(96, 64), dtype=np.float32, load=load)  # type: ignore[arg-type]
    record = np.zeros(1, SOURCE)[0]
    with pytest.raises(EngineError, match="even"):
        made.describe(record, Letterbox.fit(101, 50, 96, 64), pointer=64, pitch=101, layout="nv12")
