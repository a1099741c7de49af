import json
from pathlib import Path
from typing import List

import cv2
import pytest

from edgecount.infer.cuda.pipeline import Times
from edgecount.toolchain import timeline
from edgecount.toolchain.timeline import Batch


def batches(count: int) -> List[Batch]:
    """Each infers for 1 ms, at once after the one before."""
    made = []
    for n in range(count):
        t = 1e-3 * n
        times = Times(t, t + 1e-4, t + 3e-4, t + 1e-3, t + 2e-3, t + 2e-3, t + 2.2e-3)
        made.append(Batch(n % 3, 8, times))
    return made


def test_the_trace_has_every_span_on_its_stream() -> None:
    found = timeline.trace(batches(2))
    json.dumps(found)
    spans = [e for e in found["traceEvents"] if e["ph"] == "X"]  # type: ignore[attr-defined]
    assert [(s["name"], s["tid"]) for s in spans[:4]] == [
        ("copy in", 0),
        ("preprocess", 0),
        ("network", 1),
        ("NMS, tracker, copy out", 2),
    ]
    assert (spans[6]["ts"], spans[6]["dur"]) == (2000.0, 1000.0)
    assert spans[6]["args"] == {"batch": 1, "slot": 1, "pictures": 8}


def test_stage_times_are_medians_in_milliseconds() -> None:
    assert timeline.stage_times(batches(5)) == pytest.approx(
        {"copy in": 0.1, "preprocess": 0.2, "network": 1.0, "NMS, tracker, copy out": 0.2}
    )


def test_a_stream_without_gaps_is_busy() -> None:
    found = timeline.busy(batches(100))
    assert found["infer"] == pytest.approx(100 / 101.2)
    assert found["prepare"] == pytest.approx(30 / 101.2)
    assert timeline.busy([]) == {"prepare": 0, "infer": 0, "post": 0}


def test_a_picture_and_a_trace_are_written(tmp_path: Path) -> None:
    timeline.save(batches(20), tmp_path, "run", "a title")
    assert cv2.imread(str(tmp_path / "run.png")).std() > 10
    assert json.loads((tmp_path / "run.trace.json").read_text())["traceEvents"]


def test_nothing_is_drawn_of_nothing() -> None:
    assert timeline.draw([], "").shape[2] == 3
