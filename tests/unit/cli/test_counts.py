import csv
import io
import json
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgecount.cli.counts import command as counts
from edgecount.cli.main import cli
from edgecount.cli.verify import command as verify
from edgecount.config import LedgerSettings
from edgecount.count.ledger import Ledger
from edgecount.records import CountEvent


@pytest.fixture
def ledger_path(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.db"
    ledger = Ledger.open(LedgerSettings(path=path))
    now = time.time()
    ledger.record([CountEvent("line", "door", "a", "in", n, n, now - 1) for n in range(3)])
    ledger.record([CountEvent("zone", "door", "hall", "left", 1, 1, now - 1, dwell_s=4.0)])
    ledger.close()
    return path


def run(*arguments: object) -> str:
    result = CliRunner().invoke(counts, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_events_as_json(ledger_path: Path) -> None:
    rows = json.loads(run("--ledger", ledger_path, "--since", "1h", "--events", "--json"))
    assert [row["direction"] for row in rows] == ["in", "in", "in", "left"]
    assert rows[0]["ts"].endswith("+00:00")


def test_events_as_csv(ledger_path: Path) -> None:
    text = run("--ledger", ledger_path, "--since", "1h", "--events", "--csv")
    assert [row["seq"] for row in csv.DictReader(io.StringIO(text))] == ["1", "2", "3", "4"]


def test_dwell(ledger_path: Path) -> None:
    (row,) = json.loads(run("--ledger", ledger_path, "--since", "1h", "--dwell", "--json"))
    assert (row["zone"], row["visits"], row["median_s"]) == ("hall", 1, 4.0)


def test_nothing_counted_is_said(ledger_path: Path) -> None:
    out = run("--ledger", ledger_path, "--since", "2020-01-01", "--until", "2020-01-02", "--events")
    assert "nothing was counted" in out


def test_events_of_a_minute_that_is_not_over_are_told_of(ledger_path: Path) -> None:
    out = run("--ledger", ledger_path, "--since", "1h")
    assert "4 events, but no full minute of them yet: --events shows them" in out
    assert run("--ledger", ledger_path, "--since", "1h", "--csv") == ""


def test_verify_compares(ledger_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr("edgecount.cli.verify._SETTLE_S", 0.0)
    presses = {"in": [now, now, now, now], "out": []}
    monkeypatch.setattr("edgecount.cli.verify._count", lambda _until: presses)
    arguments = ["--ledger", str(ledger_path), "--line", "door.a", "--json"]
    result = CliRunner().invoke(verify, arguments, catch_exceptions=False)
    report = json.loads(result.stdout.splitlines()[-1])
    assert report["in"]["by_hand"] == 4
    assert report["in"]["counted"] == 3
    assert len(report["in"]["missed"]) == 1
    assert report["in"]["accuracy"] == 0.75


@pytest.mark.parametrize("what", ["config", "mqtt"])
def test_schemas_are_printed(what: str) -> None:
    result = CliRunner().invoke(cli, ["schema", what], catch_exceptions=False)
    assert result.exit_code == 0
    schema = json.loads(result.stdout)
    assert "cameras" in schema["properties"] if what == "config" else len(schema) > 8
