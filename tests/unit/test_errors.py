import inspect

import pytest

from edgecount import errors
from edgecount.errors import EdgecountError

CLASSES = [
    c for _, c in inspect.getmembers(errors, inspect.isclass) if c.__module__ == errors.__name__
]


@pytest.mark.parametrize("kind", CLASSES)
def test_all_are_of_one_tree_with_an_exit_code(kind) -> None:
    assert issubclass(kind, EdgecountError)
    assert kind.exit_code in (1, 2)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.ConfigError, 2),
        (errors.ModelError, 2),
        (errors.DatasetError, 2),
        (errors.SourceError, 1),
        (errors.EngineError, 1),
        (errors.PublishError, 1),
        (errors.LedgerError, 1),
    ],
)
def test_a_persons_mistakes_end_with_2(kind, code: int) -> None:
    error = kind("what happened")
    assert (str(error), error.exit_code) == ("what happened", code)


def test_retry() -> None:
    source = errors.SourceError("gone", retry=False)
    assert (source.retry, source.retry_after) == (False, 0.0)
    assert errors.SourceError("away", retry_after=30.0).retry
    assert errors.PublishError("away").retry
    assert not errors.PublishError("refused", retry=False).retry


def test_a_missing_extra_says_what_to_install() -> None:
    error = errors.MissingExtraError("torch", "train")
    assert "pip install 'edgecount[train]'" in str(error)
    assert error.exit_code == 2
