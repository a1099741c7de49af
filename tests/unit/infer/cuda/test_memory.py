import pytest
from support.fake_cuda import FakeCuda

from edgecount.errors import EngineError
from edgecount.infer.cuda.driver import Device
from edgecount.infer.cuda.memory import MemoryBudget

MIB = 1 << 20


def test_the_default_limit_is_70_percent() -> None:
    assert MemoryBudget(1000).limit == 700


def test_a_refusal_names_all_numbers() -> None:
    budget = MemoryBudget(100 * MIB, 0.5)
    with budget.labelled("tracker"):
        budget.reserve(30 * MIB)
    with budget.labelled("slots"), pytest.raises(EngineError) as refused:
        budget.reserve(21 * MIB)
    assert str(refused.value) == (
        "device memory: slots needs 21.0 MiB, but only 20.0 MiB of 50.0 MiB are left (50% of the "
        "device's 100.0 MiB; tracker 30.0 MiB): use a smaller input_size or fewer cameras"
    )
    assert budget.left == 20 * MIB


def test_what_is_held_elsewhere_counts_and_is_named() -> None:
    budget = MemoryBudget(100 * MIB, 0.5, elsewhere=30 * MIB)
    assert (budget.left, budget.held()) == (20 * MIB, {})
    with pytest.raises(EngineError, match=r"the pipeline that counts now holds 30\.0 MiB"):
        budget.reserve(21 * MIB)
    budget.reserve(20 * MIB)
    assert (budget.used, budget.left) == (20 * MIB, 0)


def test_memory_goes_back_to_whom_it_belonged() -> None:
    budget = MemoryBudget(100 * MIB)
    with budget.labelled("a"):
        budget.reserve(10)
    with budget.labelled("b"):
        budget.reserve(5)
        budget.give_back(5)
    assert budget.held() == {"a": 10, "b": 0}
    budget.give_back(10)
    assert budget.used == 0


def test_a_sealed_budget_refuses_everything() -> None:
    budget = MemoryBudget(100 * MIB)
    budget.seal()
    with pytest.raises(EngineError, match="while frames are processed"):
        budget.reserve(1)


@pytest.mark.parametrize(("integrated", "expected"), [(False, 64), (True, 96)])
def test_pinned_memory_counts_where_it_is_the_device_s(integrated: bool, expected: int) -> None:
    device = Device.open(0, FakeCuda(integrated=integrated))
    budget = MemoryBudget(device.properties.memory_bytes)
    device.limit_memory(budget)
    buffers = [device.allocate(64), device.pinned(32)]
    assert budget.used == expected
    for buffer in buffers:
        buffer.close()
    assert budget.used == 0


def test_an_allocation_beyond_the_limit_does_not_reach_the_driver() -> None:
    calls = FakeCuda(memory=1000)
    device = Device.open(0, calls)
    device.limit_memory(MemoryBudget(1000))
    with pytest.raises(EngineError, match="70%"):
        device.allocate(701)
    assert not calls.calls["cuMemAlloc"]
