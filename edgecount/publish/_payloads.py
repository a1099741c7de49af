"""Records as JSON objects, version 1. ``schemas/`` describes each of them."""

import json
from typing import Callable, Dict, Mapping, Tuple

from edgecount.publish.base import PlaceState
from edgecount.records import Aggregate, CountEvent, Figures

VERSION = 1


def event(event: CountEvent, *, recovered: bool) -> Dict[str, object]:
    """A crossing, an entry or an exit; the camera is in the topic."""
    payload: Dict[str, object] = {
        "v": VERSION,
        "id": event.id,
        "seq": event.seq,
        "ts": round(event.ts, 3),
        "kind": event.kind,
        event.kind: event.name,
        "direction": event.direction,
        "track": event.track,
        "recovered": recovered,
    }
    if event.direction == "left":
        payload["dwell_s"] = round(event.dwell_s, 2)
    return payload


def place(state: PlaceState) -> Dict[str, object]:
    """The state of a place."""
    return {
        "v": VERSION,
        "ts": round(state.ts, 3),
        "seq": state.seq,
        "occupancy": state.occupancy,
        "in": state.into,
        "out": state.out,
        "peak": state.peak,
        "degraded": list(state.degraded),
        **({} if state.crowded is None else {"crowded": state.crowded}),
    }


def aggregate(aggregate: Aggregate) -> Dict[str, object]:
    """What a period brought."""
    return {
        "v": VERSION,
        "start": round(aggregate.start),
        "end": round(aggregate.end),
        "lines": _by_camera(aggregate.lines, lambda f: {"in": f.into, "out": f.out}),
        "zones": _by_camera(aggregate.zones, _zone),
        "places": {name: _place(figures) for name, figures in aggregate.places.items()},
    }


def encode(payload: Mapping[str, object]) -> bytes:
    """Compact JSON."""
    return json.dumps(payload, separators=(",", ":"), allow_nan=False).encode("utf-8")


def _zone(figures: Figures) -> Dict[str, float]:
    return {
        "entered": figures.into,
        "left": figures.out,
        "peak": figures.peak,
        "mean": round(figures.mean, 2),
    }


def _place(figures: Figures) -> Dict[str, float]:
    return {
        "in": figures.into,
        "out": figures.out,
        "peak": figures.peak,
        "mean": round(figures.mean, 2),
    }


def _by_camera(
    figures: Mapping[Tuple[str, str], Figures], show: Callable[[Figures], Dict[str, float]]
) -> Dict[str, Dict[str, Dict[str, float]]]:
    cameras: Dict[str, Dict[str, Dict[str, float]]] = {}
    for (camera, name), value in figures.items():
        cameras.setdefault(camera, {})[name] = show(value)
    return cameras
