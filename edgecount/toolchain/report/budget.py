"""Whether a precision stays inside what the recipe allows it to lose."""

from typing import Any, List, Mapping, NamedTuple, Optional

from edgecount.infer.recipe import Recipe

_AP50_POINTS = 0.5
_COUNT_ERROR = 0
_ROUNDING = 1e-6  # reports are rounded to a hundredth of a point


class Budget(NamedTuple):
    """Allowed losses against FP32.

    Attributes:
        ap50_points: Points of AP50, 0..100.
        count_error: Crossings by which the error of the totals may grow.
    """

    ap50_points: float = _AP50_POINTS
    count_error: float = _COUNT_ERROR


class Verdict(NamedTuple):
    """One budget: whether it is kept, and the numbers."""

    kept: bool
    text: str


def budget_of(recipe: Recipe) -> Budget:
    """The recipe's budget, with 0.5 points of AP50 and no crossing where it says nothing."""
    given = recipe.budget if isinstance(recipe.budget, dict) else vars(recipe.budget)
    known = {key: given[key] for key in Budget._fields if given.get(key) is not None}
    return Budget(**known)


def judge(row: Mapping[str, Any], base: Mapping[str, Any], budget: Budget) -> List[Verdict]:
    """Judge one row of a report's JSON against the FP32 row.

    Returns:
        One verdict for each budget that was measured.
    """
    found = [_accuracy(row, base, budget), _counts(row, base, budget)]
    return [verdict for verdict in found if verdict is not None]


def _accuracy(row: Mapping[str, Any], base: Mapping[str, Any], budget: Budget) -> Verdict:
    lost = 100 * (base["ap50"] - row["ap50"])
    kept = lost <= budget.ap50_points + _ROUNDING
    return Verdict(
        kept,
        f"{row['title']}: AP50 {100 * row['ap50']:.2f} against {100 * base['ap50']:.2f}, "
        f"{'loses' if lost > 0 else 'gains'} {abs(lost):.2f} points "
        f"(budget {budget.ap50_points:g})",
    )


def _counts(row: Mapping[str, Any], base: Mapping[str, Any], budget: Budget) -> Optional[Verdict]:
    if row["count"] is None or base["count"] is None:
        return None
    grown = row["count"]["error"] - base["count"]["error"]
    return Verdict(
        grown <= budget.count_error,
        f"{row['title']}: count error {row['count']['error']} against {base['count']['error']} "
        f"of {base['count']['true']} crossings, {grown:+d} (budget {budget.count_error:g})",
    )
