"""Optimal assignment on sparse pairs."""

from itertools import permutations
from typing import Dict, Optional, Tuple

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecount.track._assignment import solve

LIMIT = 1 << 15
Pair = Tuple[int, int]

sparse = st.dictionaries(
    st.tuples(st.integers(0, 4), st.integers(0, 4)), st.integers(0, LIMIT - 1), max_size=14
)


def solved(pairs: Dict[Pair, int], order: Optional[np.ndarray] = None) -> Dict[int, int]:
    rows = np.array([r for r, _ in pairs], np.int64)
    cols = np.array([c for _, c in pairs], np.int64)
    costs = np.array(list(pairs.values()), np.int64)
    if order is not None:
        rows, cols, costs = rows[order], cols[order], costs[order]
    chosen_rows, chosen_cols = solve(rows, cols, costs, LIMIT)
    assert len(set(chosen_cols.tolist())) == len(chosen_cols)
    return dict(zip(chosen_rows.tolist(), chosen_cols.tolist()))


def gain(pairs: Dict[Pair, int], chosen: Dict[int, int]) -> int:
    return sum(LIMIT - pairs[pair] for pair in chosen.items())


def best_gain(pairs: Dict[Pair, int]) -> int:
    return max(
        sum(max(0, LIMIT - pairs.get((r, c), LIMIT)) for r, c in enumerate(columns))
        for columns in permutations(range(5))
    )


@given(sparse)
@settings(max_examples=200, deadline=None)
def test_no_other_choice_is_better(pairs: Dict[Pair, int]) -> None:
    assert gain(pairs, solved(pairs)) == best_gain(pairs)


@given(sparse, st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_the_order_of_the_pairs_does_not_matter(pairs: Dict[Pair, int], random: object) -> None:
    order = np.array(sorted(range(len(pairs)), key=lambda _: random.random()), np.int64)  # type: ignore[attr-defined]
    assert solved(pairs, order) == solved(pairs)


def test_ties_go_to_lower_indices_in_order() -> None:
    assert solved({(0, 0): 5, (0, 1): 5}) == {0: 0}
    assert solved({(0, 0): 5, (1, 0): 5}) == {0: 0}
    everywhere = {(r, c): 7 for r in range(4) for c in range(4)}
    assert solved(everywhere) == {0: 0, 1: 1, 2: 2, 3: 3}


def test_a_dear_pair_is_given_up_for_a_better_total() -> None:
    assert solved({(0, 0): 0, (0, 1): 10, (1, 0): 10}) == {0: 1, 1: 0}
    assert solved({(0, 0): 0, (0, 1): LIMIT - 1, (1, 0): LIMIT - 1}) == {0: 0}


def test_large_components_agree_with_a_dense_solver() -> None:
    random = np.random.default_rng(0)
    pairs = {(r, c): int(random.integers(0, LIMIT)) for r in range(60) for c in range(60)}
    import lap

    dense = np.array([[pairs[r, c] for c in range(60)] for r in range(60)], float) / LIMIT
    total, _, _ = lap.lapjv(dense)
    chosen = solved(pairs)
    assert sum(pairs[p] for p in chosen.items()) == round(total * LIMIT)
