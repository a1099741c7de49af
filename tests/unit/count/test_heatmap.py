from pathlib import Path

import numpy as np
import pytest

from edgecount.config import LedgerSettings
from edgecount.count import heatmap, query
from edgecount.count.ledger import Ledger
from edgecount.errors import ConfigError
from edgecount.records import Detections, FrameInfo, Tracked, Tracks

NOON = 1_795_521_600.0


def tracked(time: float, *boxes: tuple, confirmed: bool = True) -> Tracked:
    n = len(boxes)
    return Tracked(
        FrameInfo("door", 0, NOON + time, time, 640, 480),
        Tracks(
            np.arange(n, dtype=np.int64),
            np.array(boxes, np.float32).reshape(-1, 4),
            np.ones(n, np.float32),
            np.zeros(n, np.int32),
            np.full(n, confirmed),
            np.zeros(0, np.int64),
        ),
        Detections.empty(),
    )


def test_heads_warm_their_cells() -> None:
    cells = heatmap.HeatMap("center").look(tracked(0.0, (0, 0, 20, 20), (620, 460, 640, 480)))
    assert cells == [0, heatmap.COLUMNS * heatmap.ROWS - 1]


def test_it_looks_once_a_second_of_stream_time() -> None:
    heat = heatmap.HeatMap("center")
    looks = [bool(heat.look(tracked(n / 25.0, (0, 0, 20, 20)))) for n in range(100)]
    assert sum(looks) == 4
    assert heat.look(tracked(0.0, (0, 0, 20, 20)))  # the clip begins again


def test_people_outside_and_unconfirmed_tracks_make_no_trouble() -> None:
    heat = heatmap.HeatMap("center")
    last = heatmap.COLUMNS * heatmap.ROWS - 1
    assert heat.look(tracked(0.0, (-90, -90, -50, -50), (900, 900, 990, 990))) == [0, last]
    assert heat.look(tracked(5.0, (0, 0, 20, 20), confirmed=False)) == []
    assert heat.look(tracked(9.0)) == []


def test_grids_survive_their_bytes() -> None:
    grid = heatmap.empty()
    grid[3, 7] = 4_000_000_000
    assert np.array_equal(heatmap.from_bytes(heatmap.to_bytes(grid)), grid)
    with pytest.raises(ValueError):
        heatmap.from_bytes(b"short")


def test_hours_are_kept_apart_and_added_up(tmp_path: Path) -> None:
    path, now = tmp_path / "l.db", [NOON]
    ledger = Ledger.open(
        LedgerSettings(path=path, commit_ms=1), clock=lambda: now[0], monotonic=lambda: now[0]
    )
    for _minute in range(121):
        ledger.warm("door", [5, 5, 9])
        now[0] += 60.0
        ledger.flush()
    now[0] += 10.0
    ledger.flush()
    ledger.close()
    first = query.heat(path, "door", NOON, NOON + 3600)
    both = query.heat(path, "door", NOON, NOON + 7200)
    # A minute is closed two seconds after it, and this clock only stops at full minutes.
    assert first.reshape(-1)[[5, 9]].tolist() == [2 * 61, 61]
    assert both.reshape(-1)[[5, 9]].tolist() == [2 * 121, 121]
    assert first.sum() == 3 * 61
    with pytest.raises(ConfigError, match="did you mean 'door'"):
        query.heat(path, "dor", NOON, NOON + 1)


def test_the_end_of_a_run_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    for _run in range(3):
        ledger = Ledger.open(LedgerSettings(path=path), clock=lambda: NOON + 90.0)
        ledger.warm("door", [5])
        ledger.close()
    assert query.heat(path, "door", NOON, NOON + 3600).sum() == 3
