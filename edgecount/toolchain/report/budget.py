"""Whether a precision stays inside what the recipe allows it to lose."""

from typing import Any, List, Mapping, NamedTuple, Optional

from edgecount.infer.recipe import BudgetRecipe

_ROUNDING = 1e-6  # reports are rounded to a hundredth of a point


class Verdict(NamedTuple):
    """One budget: whether it is kept, and the numbers."""

    kept: bool
    text: str


def judge(row: Mapping[str, Any], base: Mapping[str, Any], budget: BudgetRecipe) -> List[Verdict]:
    """Judge one row of a report's JSON against the FP32 row.

    Returns:
        One verdict for each budget that was measured.
    """
    found = [_accuracy(row, base, budget), _counts(row, base, budget)]
    return [verdict for verdict in found if verdict is not None]


def _accuracy(row: Mapping[str, Any], base: Mapping[str, Any], budget: BudgetRecipe) -> Verdict:
    lost = 100 * (base["ap50"] - row["ap50"])
    kept = lost <= budget.ap50_points + _ROUNDING
    return Verdict(
        kept,
        f"{row['title']}: AP50 {100 * row['ap50']:.2f} against {100 * base['ap50']:.2f}, "
        f"{'loses' if lost > 0 else 'gains'} {abs(lost):.2f} points "
        f"(budget {budget.ap50_points:g})",
    )


def _counts(
    row: Mapping[str, Any], base: Mapping[str, Any], budget: BudgetRecipe
) -> Optional[Verdict]:
    if row["count"] is None or base["count"] is None:
        return None
    grown = row["count"]["error"] - base["count"]["error"]
    return Verdict(
        grown <= budget.count_error,
        f"{row['title']}: count error {row['count']['error']} against {base['count']['error']} "
        f"of {base['count']['true']} crossings, {grown:+d} (budget {budget.count_error:g})",
    )
