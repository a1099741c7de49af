"""The emulator does what a GPU would, and notices what a GPU would not say."""

from ctypes import c_int, c_void_p
from pathlib import Path

import numpy as np
import pytest
from support.cuda_emulator import emulator

SOURCE = str(Path(__file__).parent / "kernels.cu")
KERNELS = ["block_sum", "warp_scan", "reverse", "stuck", "out_of_bounds", "vote"]


@pytest.fixture(scope="module")
def device() -> emulator.Device:
    return emulator.Device()


@pytest.fixture(scope="module")
def module(device: emulator.Device) -> emulator.Module:
    return device.compile(SOURCE, KERNELS)


def block_sum(device: emulator.Device, module: emulator.Module, seed: int) -> float:
    values = np.arange(1000, dtype=np.float32)
    source, total = device.array(values), device.array(np.zeros(1, np.float32))
    device.stream(seed).launch(
        module.function("block_sum"),
        (4, 1, 1),
        (256, 1, 1),
        [c_void_p(source.pointer), c_void_p(total.pointer), c_int(1000)],
    )
    return float(total.view((1,), np.float32)[0])


@pytest.mark.parametrize("seed", range(4))
def test_barriers_shared_memory_and_atomics(
    device: emulator.Device, module: emulator.Module, seed: int
) -> None:
    assert block_sum(device, module, seed) == 999 * 500


def test_a_missing_barrier_shows(device: emulator.Device) -> None:
    racy = device.compile(SOURCE, ["block_sum"], {"NO_BARRIER": 1})
    assert {block_sum(device, racy, seed) for seed in range(1, 6)} != {999 * 500}


@pytest.mark.parametrize("seed", range(4))
def test_warp_collectives(device: emulator.Device, module: emulator.Module, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 7, 64).astype(np.int32)
    source, sums = device.array(values), device.array(np.zeros(64, np.int32))
    ballots = device.array(np.zeros(64, np.uint32))
    pointers = [c_void_p(m.pointer) for m in (source, sums, ballots)]
    device.stream(seed).launch(module.function("warp_scan"), (1, 1, 1), (64, 1, 1), pointers)
    expected = np.concatenate([np.cumsum(values[:32]), np.cumsum(values[32:])])
    assert (sums.view((64,), np.int32) == expected).all()
    for half in (0, 1):
        bits = sum(int(v > 3) << i for i, v in enumerate(values[32 * half : 32 * half + 32]))
        assert (ballots.view((64,), np.uint32)[32 * half : 32 * half + 32] == bits).all()


def test_dynamic_shared_memory(device: emulator.Device, module: emulator.Module) -> None:
    values = np.arange(40, dtype=np.int32)
    memory = device.array(values)
    device.stream(3).launch(
        module.function("reverse"),
        (1, 1, 1),
        (40, 1, 1),
        [c_void_p(memory.pointer), c_int(40)],
        160,
    )
    assert (memory.view((40,), np.int32) == values[::-1]).all()


def test_block_votes(device: emulator.Device, module: emulator.Module) -> None:
    values = np.array([1, 2, 3, 0] * 10, np.int32)
    source, out = device.array(values), device.array(np.zeros(40, np.int32))
    device.stream(5).launch(
        module.function("vote"), (1, 1, 1), (40, 1, 1),
        [c_void_p(source.pointer), c_void_p(out.pointer)],
    )  # fmt: skip
    assert (out.view((40,), np.int32) == 30 * 4).all()


def test_a_barrier_that_not_all_reach_is_named(
    device: emulator.Device, module: emulator.Module
) -> None:
    with pytest.raises(emulator.KernelError, match="deadlock"):
        device.stream().launch(module.function("stuck"), (1, 1, 1), (32, 1, 1), [])


def test_a_write_behind_the_end_is_named(device: emulator.Device, module: emulator.Module) -> None:
    memory = device.array(np.zeros(16, np.int32))
    with pytest.raises(emulator.KernelError, match=r"invalid memory access.*thread 0,0,0"):
        device.stream().launch(
            module.function("out_of_bounds"),
            (1, 1, 1),
            (32, 1, 1),
            [c_void_p(memory.pointer), c_int(16)],
        )
