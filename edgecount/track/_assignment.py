"""Optimal one-to-one assignment on sparse pairs with integer costs, the same on any machine.

Only pairs that passed the gate are given. They fall into connected components; a component
with one row or one column is settled by its minimum, a larger one by the
Jonker-Volgenant algorithm (``lap``). The objective is the sum of the costs of the chosen
pairs plus ``limit`` for each pair that could have been but was not chosen: choosing a pair
pays as long as its cost is below ``limit``.

Ties. Costs are integers below 2**16 and shifted left by 22 bits; the low bits take
``2048 (i + j) - i j`` for row ``i`` and column ``j``, which prefers lower rows and columns
and, of two ways to pair the same rows and columns, the one in order. So the optimum is
unique (all sums are exact in float64), and any exact solver finds the same one.
"""

from typing import Dict, List, Tuple

import lap
import numpy as np

from edgecount.records import Int64Array

_SHIFT = 22
_SPAN = 2048  # rows and columns that the tie rule tells apart
_SCALE = 2.0**-38  # keys as lap takes them: exact, and well below its built-in "infinity" of 1e6
_FORBIDDEN = 8.0

Pairs = Tuple[Int64Array, Int64Array]


def solve(rows: Int64Array, cols: Int64Array, costs: Int64Array, limit: int) -> Pairs:
    """Choose pairs so that no row and no column occurs twice and the total cost is least.

    Args:
        rows: (P,) row of each allowed pair, from 0.
        cols: (P,) column of each allowed pair, from 0.
        costs: (P,) its cost, 0 ≤ cost < limit.
        limit: Cost of leaving a row and a column unmatched, at most 2**16.

    Returns:
        Rows and columns of the chosen pairs, in no particular order.
    """
    if not len(rows):
        return rows, cols
    alone = (np.bincount(rows)[rows] == 1) & (np.bincount(cols)[cols] == 1)
    chosen_rows, chosen_cols = rows[alone], cols[alone]
    if not alone.all():
        rest = ~alone
        rows, cols = rows[rest], cols[rest]
        keys = (costs[rest] << _SHIFT) + _SPAN * (rows + cols) - rows * cols
        pairs = _solve_components(rows.tolist(), cols.tolist(), keys.tolist(), limit << _SHIFT)
        more = np.array(pairs, np.int64).reshape(-1, 2)
        chosen_rows = np.concatenate((chosen_rows, more[:, 0]))
        chosen_cols = np.concatenate((chosen_cols, more[:, 1]))
    return chosen_rows, chosen_cols


def _solve_components(
    rows: List[int], cols: List[int], keys: List[int], limit: int
) -> List[Tuple[int, int]]:
    chosen: List[Tuple[int, int]] = []
    for members in _components(rows, cols):
        r = sorted({rows[k] for k in members})
        c = sorted({cols[k] for k in members})
        if len(r) == 1 or len(c) == 1:
            best = min(members, key=keys.__getitem__)
            chosen.append((rows[best], cols[best]))
            continue
        matrix = np.full((len(r), len(c)), _FORBIDDEN)
        row_at = {row: at for at, row in enumerate(r)}
        col_at = {col: at for at, col in enumerate(c)}
        for k in members:
            matrix[row_at[rows[k]], col_at[cols[k]]] = keys[k] * _SCALE
        _, matched, _ = lap.lapjv(matrix, extend_cost=True, cost_limit=limit * _SCALE)
        chosen.extend((row, c[at]) for row, at in zip(r, matched.tolist()) if at >= 0)
    return chosen


def _components(rows: List[int], cols: List[int]) -> List[List[int]]:
    """Indices of pairs by connected component (union-find over rows and columns)."""
    parent: Dict[int, int] = {}

    def find(node: int) -> int:
        root = node
        while parent.setdefault(root, root) != root:
            root = parent[root]
        while parent[node] != root:
            parent[node], node = root, parent[node]
        return root

    for row, col in zip(rows, cols):
        parent[find(row)] = find(~col)
    groups: Dict[int, List[int]] = {}
    for k, row in enumerate(rows):
        groups.setdefault(find(row), []).append(k)
    return list(groups.values())
