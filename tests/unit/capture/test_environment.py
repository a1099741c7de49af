import ctypes
import os
import threading
from typing import List, Optional

import pytest

from edgecount.capture._environment import SharedVariable, keep_freed_memory

NAME = "EDGECOUNT_TEST_SHARED_VARIABLE"


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(NAME, raising=False)


def test_it_is_set_meanwhile_only() -> None:
    with SharedVariable(NAME).holding("a"):
        assert os.environ[NAME] == "a"
    assert NAME not in os.environ


def test_what_the_user_had_set_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, "user")
    variable = SharedVariable(NAME)
    with pytest.raises(ZeroDivisionError), variable.holding("a"):
        raise ZeroDivisionError
    assert os.environ[NAME] == "user"


def test_the_same_value_is_held_together() -> None:
    variable = SharedVariable(NAME)
    together = threading.Barrier(2, timeout=5.0)

    def hold() -> None:
        with variable.holding("a"):
            together.wait()  # breaks if the other one cannot get in

    threads = [threading.Thread(target=hold) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10.0)
    assert not together.broken
    assert NAME not in os.environ


def test_another_value_waits() -> None:
    variable = SharedVariable(NAME)
    seen: List[Optional[str]] = []
    inside, leave = threading.Event(), threading.Event()

    def first() -> None:
        with variable.holding("a"):
            inside.set()
            leave.wait(5.0)
            seen.append(os.environ.get(NAME))

    def second() -> None:
        inside.wait(5.0)
        with variable.holding("b"):
            seen.append(os.environ.get(NAME))

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    for thread in threads:
        thread.start()
    inside.wait(5.0)
    leave.set()
    for thread in threads:
        thread.join(10.0)
    assert seen == ["a", "b"]
    assert NAME not in os.environ


def test_freed_memory_is_kept_unless_the_user_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: List[int] = []

    class Library:
        @staticmethod
        def mallopt(parameter: int, value: int) -> int:
            calls.append(parameter)
            return 1

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Library())
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    keep_freed_memory()
    assert calls == [-3, -1]
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    keep_freed_memory()
    assert calls == [-3, -1]


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    keep_freed_memory()
