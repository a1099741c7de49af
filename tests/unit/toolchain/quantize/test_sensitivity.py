from typing import List, Sequence, Set

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecount.toolchain.quantize.sensitivity import smallest_set

LAYERS = list("abcdefgh")


def costs(**damage: float):
    calls: List[Sequence[str]] = []

    def loss(spared: Sequence[str]) -> float:
        calls.append(spared)
        return sum(v for k, v in damage.items() if k not in spared)

    return loss, calls


def test_nothing_is_spared_where_nothing_is_lost() -> None:
    loss, calls = costs(a=0.4)
    found = smallest_set(LAYERS, loss, 0.5)
    assert (found.layers, found.within, found.loss, len(calls)) == ([], True, 0.4, 1)


def test_the_one_layer_that_matters_is_found_wherever_it_ranks() -> None:
    loss, _ = costs(f=3.0)
    assert smallest_set(LAYERS, loss, 0.5).layers == ["f"]


def test_three_of_the_worst() -> None:
    loss, _ = costs(a=1.0, b=1.0, c=1.0, d=0.2, e=0.2)
    found = smallest_set(LAYERS, loss, 0.5)
    assert found.layers == ["a", "b", "c"]
    assert found.loss == pytest.approx(0.4)


def test_a_budget_that_cannot_be_met() -> None:
    found = smallest_set(LAYERS, lambda _spared: 2.0, 0.5)
    assert not found.within
    assert found.layers == LAYERS


@given(st.dictionaries(st.sampled_from(LAYERS), st.floats(0.0, 2.0)), st.floats(0.0, 3.0))
def test_what_is_found_fits_and_can_spare_none(damage: dict, budget: float) -> None:
    loss, calls = costs(**damage)
    found = smallest_set(LAYERS, loss, budget)
    assert found.within
    assert loss(found.layers) <= budget
    assert len(set(map(tuple, calls))) == len(calls) - 1  # none was measured twice but our own
    kept: Set[str] = set(found.layers)
    for name in found.layers:
        assert loss(sorted(kept - {name})) > budget
