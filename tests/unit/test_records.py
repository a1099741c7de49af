import dataclasses
import json

import numpy as np
import pytest

from edgecount.records import Detections, LineTotals, Snapshot, Tracks, ZoneState


def test_empty_records_have_shapes_and_dtypes() -> None:
    detections, tracks = Detections.empty(), Tracks.empty()
    assert len(detections) == len(tracks) == 0
    assert detections.boxes.shape == tracks.boxes.shape == (0, 4)
    for record in (detections, tracks):
        assert record.boxes.dtype == record.scores.dtype == np.float32
        assert record.classes.dtype == np.int32
    assert tracks.ids.dtype == tracks.ended.dtype == np.int64
    assert tracks.confirmed.dtype == np.bool_


def test_empty_records_share_no_arrays() -> None:
    assert Detections.empty().boxes is not Detections.empty().boxes


def test_records_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Detections.empty().scores = np.zeros(1)  # type: ignore[misc]


def test_a_snapshots_payload_is_json_with_the_names_of_the_wire() -> None:
    snapshot = Snapshot(
        camera="door",
        ts=1.23456,
        seq=7,
        visible=3,
        lines={"entrance": LineTotals(into=2, out=1)},
        zones={"hall": ZoneState(now=1, entered=4, left=3, max_dwell_s=2.345)},
        fps=24.987,
        degraded=("stale",),
        since=0.5,
    )
    payload = json.loads(json.dumps(snapshot.payload()))
    assert {k: payload[k] for k in ("v", "ts", "seq", "visible", "fps", "degraded", "since")} == {
        "v": 1,
        "ts": 1.235,
        "seq": 7,
        "visible": 3,
        "fps": 24.99,
        "degraded": ["stale"],
        "since": 0.5,
    }
    assert payload["lines"] == {"entrance": {"in": 2, "out": 1}}
    hall = payload["zones"]["hall"]
    assert (hall["now"], hall["entered"], hall["left"]) == (1, 4, 3)
    assert hall["max_dwell_s"] == pytest.approx(2.345, abs=0.005)
