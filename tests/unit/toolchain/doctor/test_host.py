import shutil
from types import SimpleNamespace

import pytest

from edgecount.toolchain.doctor import host

NOW = 1_795_000_000.0
GIB = 2.0**30


@pytest.mark.parametrize(
    ("answer", "now", "state"),
    [
        (0, NOW, "ok"),
        (5, NOW, "warn"),
        (None, NOW, "skip"),
        (0, 86_400.0, "fail"),  # a board without a battery wakes up in 1970
    ],
)
def test_clock(answer, now, state):
    finding = host.clock(lambda: answer, lambda: now)
    assert finding.state == state
    assert bool(finding.remedy) == (state in ("warn", "fail"))


def test_the_kernel_answers():
    assert host.clock().state in ("ok", "warn", "skip")


@pytest.mark.parametrize(
    ("free", "state"), [(50 * GIB, "ok"), (0.5 * GIB, "warn"), (0.01 * GIB, "fail")]
)
def test_disk(tmp_path, monkeypatch, free, state):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    finding = host.disk(tmp_path / "not" / "there" / "yet" / "ledger.db")
    assert finding.state == state
    assert bool(finding.remedy) == (state != "ok")


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(host.os, "access", lambda *_: False)
    finding = host.disk(tmp_path / "ledger.db")
    assert finding.state == "fail"
    assert str(tmp_path) in finding.detail


@pytest.mark.parametrize(("available", "state"), [(2 * GIB, "ok"), (0.1 * GIB, "warn")])
def test_memory(monkeypatch, available, state):
    seen = SimpleNamespace(available=available, total=4 * GIB)
    monkeypatch.setattr(host.psutil, "virtual_memory", lambda: seen)
    assert host.memory().state == state
