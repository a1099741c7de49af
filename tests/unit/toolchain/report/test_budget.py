import pytest

from edgecount.infer.recipe import BudgetRecipe
from edgecount.toolchain.report.budget import judge


def _row(ap50, error=None, title="INT8"):
    count = None if error is None else {"true": 66, "missed": 1, "extra": 1, "error": error}
    return {"title": title, "ap50": ap50, "count": count}


@pytest.mark.parametrize(
    ("ap50", "error", "kept"),
    [
        (0.945, 1, [True, True]),
        (0.940, 1, [True, True]),  # exactly the budget
        (0.9399, 1, [False, True]),
        (0.950, 2, [True, False]),
        (0.930, 3, [False, False]),
        (0.945, 0, [True, True]),
    ],
)
def test_each_budget_is_judged_by_itself(ap50, error, kept):
    verdicts = judge(
        _row(ap50, error), _row(0.945, 1), BudgetRecipe(ap50_points=0.5, count_error=0)
    )
    assert [verdict.kept for verdict in verdicts] == kept


def test_the_text_holds_the_numbers():
    accuracy, counts = judge(
        _row(0.930, 4), _row(0.945, 1), BudgetRecipe(ap50_points=0.5, count_error=0)
    )
    assert "AP50 93.00 against 94.50, loses 1.50 points (budget 0.5)" in accuracy.text
    assert "count error 4 against 1 of 66 crossings, +3 (budget 0)" in counts.text


def test_what_was_not_counted_is_not_judged():
    assert len(judge(_row(0.9), _row(0.9), BudgetRecipe())) == 1
