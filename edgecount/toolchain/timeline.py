"""What the three CUDA streams did and when: as a Chrome trace, and as a picture."""

import json
from pathlib import Path
from typing import Dict, List, NamedTuple, Sequence, Tuple

import cv2
import numpy as np

from edgecount.infer.cuda.pipeline import Times
from edgecount.records import UInt8Array

# Name, stream, begin and end as fields of Times.
_SPANS: Sequence[Tuple[str, str, str, str]] = (
    ("copy in", "prepare", "begun", "uploaded"),
    ("preprocess", "prepare", "uploaded", "prepared"),
    ("network", "infer", "infer_begun", "inferred"),
    ("NMS, tracker, copy out", "post", "post_begun", "finished"),
)
_STREAMS = ("prepare", "infer", "post")
_MICROSECONDS = 1e6
# Blue, green, red: one colour for each slot of the ring, readable on white.
_COLOURS = ((180, 119, 31), (14, 127, 255), (44, 160, 44), (189, 103, 148), (75, 86, 140))
_WIDTH, _ROW, _LEFT, _TOP = 1600, 90, 110, 40
_FONT = cv2.FONT_HERSHEY_SIMPLEX


class Batch(NamedTuple):
    """A batch that went through the pipeline: where, how large, and when it was where."""

    slot: int
    size: int
    times: Times


def trace(batches: Sequence[Batch]) -> Dict[str, object]:
    """The batches as a Chrome trace, which Perfetto and chrome://tracing open."""
    events: List[Dict[str, object]] = [
        {"ph": "M", "name": "process_name", "pid": 0, "args": {"name": "GPU"}}
    ]
    for number, stream in enumerate(_STREAMS):
        label = {"name": f"{stream} stream"}
        events.append({"ph": "M", "name": "thread_name", "pid": 0, "tid": number, "args": label})
    for index, batch in enumerate(batches):
        for name, stream, begin, end in _SPANS:
            start, stop = getattr(batch.times, begin), getattr(batch.times, end)
            events.append(
                {
                    "ph": "X",
                    "name": name,
                    "cat": stream,
                    "pid": 0,
                    "tid": _STREAMS.index(stream),
                    "ts": round(_MICROSECONDS * start, 3),
                    "dur": round(_MICROSECONDS * (stop - start), 3),
                    "args": {"batch": index, "slot": batch.slot, "pictures": batch.size},
                }
            )
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def stage_times(batches: Sequence[Batch]) -> Dict[str, float]:
    """Median milliseconds of each part of a batch, on the device."""
    return {
        name: 1e3
        * float(np.median([getattr(b.times, end) - getattr(b.times, begin) for b in batches]))
        for name, _, begin, end in _SPANS
    }


def busy(batches: Sequence[Batch]) -> Dict[str, float]:
    """Share of the time from the first to the last batch in which each stream worked."""
    if not batches:
        return dict.fromkeys(_STREAMS, 0.0)
    span = batches[-1].times.finished - batches[0].times.begun
    totals = dict.fromkeys(_STREAMS, 0.0)
    for batch in batches:
        for _, stream, begin, end in _SPANS:
            totals[stream] += getattr(batch.times, end) - getattr(batch.times, begin)
    return {stream: total / span for stream, total in totals.items()}


def draw(batches: Sequence[Batch], title: str) -> UInt8Array:
    """A picture of the streams, time to the right, one colour for each slot; BGR."""
    canvas = np.full((_TOP + _ROW * len(_STREAMS) + 50, _WIDTH, 3), 255, np.uint8)
    _write(canvas, title, (10, 26), 0.6)
    for row, stream in enumerate(_STREAMS):
        _write(canvas, stream, (10, _TOP + row * _ROW + _ROW // 2), 0.6)
    if batches:
        start = min(b.times.begun for b in batches)
        span = max(b.times.finished for b in batches) - start
        scale = (_WIDTH - _LEFT - 20) / span
        _draw_axis(canvas, span, scale)
        for index, batch in enumerate(batches):
            _draw_batch(canvas, batch, index, start, scale)
    return canvas


def save(batches: Sequence[Batch], folder: Path, name: str, title: str, *, shown: int = 8) -> None:
    """Write ``name.trace.json`` with all batches and ``name.png`` with the last few."""
    text = json.dumps(trace(batches))
    (folder / f"{name}.trace.json").write_text(text, encoding="utf-8")
    cv2.imwrite(str(folder / f"{name}.png"), draw(list(batches)[-shown:], title))


def _draw_batch(canvas: UInt8Array, batch: Batch, index: int, start: float, scale: float) -> None:
    colour = _COLOURS[batch.slot % len(_COLOURS)]
    for name, stream, begin, end in _SPANS:
        left = _LEFT + round(scale * (getattr(batch.times, begin) - start))
        right = max(left + 1, _LEFT + round(scale * (getattr(batch.times, end) - start)))
        top = _TOP + _STREAMS.index(stream) * _ROW + 12
        shade = colour if name != "copy in" else tuple((c + 510) // 3 for c in colour)
        cv2.rectangle(canvas, (left, top), (right, top + _ROW - 30), shade, -1)
        cv2.rectangle(canvas, (left, top), (right, top + _ROW - 30), (70, 70, 70), 1)
        if right - left > 24 and name != "copy in":
            _write(canvas, str(index), (left + 4, top + 24), 0.5, (255, 255, 255))


def _draw_axis(canvas: UInt8Array, span: float, scale: float) -> None:
    bottom = _TOP + _ROW * len(_STREAMS) + 8
    step = _round_step(span / 8)
    for tick in range(int(span / step) + 1):
        x = _LEFT + round(scale * tick * step)
        cv2.line(canvas, (x, _TOP), (x, bottom), (210, 210, 210), 1)
        _write(canvas, f"{1e3 * tick * step:g} ms", (x - 10, bottom + 24), 0.5)


def _round_step(raw: float) -> float:
    """The next larger of 1, 2 and 5 times a power of ten."""
    power = 10.0 ** np.floor(np.log10(max(raw, 1e-9)))
    return float(next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw))


def _write(
    canvas: UInt8Array,
    text: str,
    where: Tuple[int, int],
    size: float,
    colour: Tuple[int, int, int] = (40, 40, 40),
) -> None:
    cv2.putText(canvas, text, where, _FONT, size, colour, 1, cv2.LINE_AA)
