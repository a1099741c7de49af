#!/usr/bin/env python3
"""Write the references that follow from the code: docs/metrics.md and docs/events.md.

Usage: generate.py [FOLDER]. A test compares the output with what is committed. An event
that the code logs and docs/events.yaml does not explain is an error, and the other way round.
"""

import ast
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Set

import yaml

from edgecount.observe.metrics import BUCKETS, Metrics
from edgecount.observe.telemetry.base import Reading

HERE = Path(__file__).resolve().parent
PACKAGE = HERE.parent / "edgecount"
LEVELS = ("debug", "info", "warning", "error", "exception", "critical")
NOTE = "<!-- Made by docs/generate.py; do not edit. -->\n"
METRICS_INTRO = """
    Served at `/metrics` in the Prometheus text format (and as OpenMetrics to those who ask).
    Label values come from the configuration and from closed sets, so the number of series is
    bounded: per camera 10, and 2 per line and 1 per zone.
"""
OUTCOMES = """
    `outcome` of a frame: `processed` to its end; `dropped` for a newer one of the same camera;
    `skipped` because of `max_fps`; `failed` in inference or decoding.
"""
ABSENT = """
    A metric that a platform cannot tell has no series: there are no `gpu_…` series without a GPU,
    and no `mqtt_connected` without a configured broker. On a Jetson CPU and GPU share the memory:
    `gpu_memory_bytes` is the board's, and `used` is what the kernel does not call available.
"""
EVENTS_INTRO = """
    Every log line is one event with a stable name. Besides `ts` (UTC), `level` and `event` it
    carries the fields below, `suppressed` (how many repeats were left out before it) where it was
    repeated, and `exception` (a traceback) where one was logged. Passwords are masked in all of
    them.
"""


def main(folder: Path) -> None:
    """Write both files into ``folder``."""
    (folder / "metrics.md").write_text(metrics_page(), encoding="utf-8")
    (folder / "events.md").write_text(events_page(), encoding="utf-8")


def metrics_page() -> str:
    """All metrics with type, labels and meaning."""
    lines = [
        "# Metrics",
        "",
        NOTE,
        flow(METRICS_INTRO),
        "",
        "| metric | type | labels | meaning |",
        "|---|---|---|---|",
    ]
    for family in full().registry.collect():
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = sorted({k for s in family.samples for k in s.labels} - {"le"})
        shown = ", ".join(f"`{label}`" for label in labels)
        lines.append(f"| `{name}` | {family.type} | {shown} | {family.documentation} |")
    buckets = ", ".join(f"{1000 * b:g}" for b in BUCKETS)
    lines += [
        "",
        f"Buckets of `edgecount_stage_seconds`, in milliseconds: {buckets}.",
        "",
        flow(OUTCOMES),
        "",
        flow(ABSENT),
        "",
    ]
    return "\n".join(lines)


def flow(text: str) -> str:
    """A paragraph on one line."""
    return " ".join(text.split())


def full() -> Metrics:
    """Metrics in which every family has a sample."""
    ones = {"-": 1.0}
    reading = Reading({"total": 1.0, "used": 1.0}, 1.0, True, ones, ones, "-", ones, 1.0)
    metrics = Metrics(device=lambda: reading)
    metrics.camera("-", 25.0, ["-"], ["-"])
    metrics.occupancy("-", 0)
    metrics.broker(True)
    metrics.outbox(0)
    metrics.build("-", "-", "-", "-")
    return metrics


@dataclass(frozen=True)
class Call:
    """One place that logs an event. ``level`` is the method's name."""

    event: str
    level: str
    fields: Set[str]
    module: str


def events_page() -> str:
    """All events with level, fields and meaning."""
    meanings: Dict[str, str] = yaml.safe_load((HERE / "events.yaml").read_text(encoding="utf-8"))
    calls = [c for path in sorted(PACKAGE.rglob("*.py")) for c in calls_of(path)]
    # Lines of other libraries get this name in the chain of observe/logs.py.
    calls.append(Call("library_log", "any", {"library", "message"}, "edgecount.observe.logs"))
    logged = {c.event for c in calls}
    odd = sorted(logged ^ set(meanings))
    if odd:
        names = ", ".join(odd)
        raise SystemExit(f"docs/events.yaml and the code differ in: {names}; correct it, run me")
    lines = [
        "# Log events",
        "",
        NOTE,
        flow(EVENTS_INTRO),
        "",
        "| event | level | fields | meaning |",
        "|---|---|---|---|",
    ]
    by_event = {event: [c for c in calls if c.event == event] for event in sorted(logged)}
    lines += [row(event, found, meanings) for event, found in by_event.items()]
    return "\n".join([*lines, ""])


def row(event: str, calls: List[Call], meanings: Dict[str, str]) -> str:
    """One line of the table."""
    # log.exception writes at the level error.
    levels = "/".join(sorted({"error" if c.level == "exception" else c.level for c in calls}))
    fields = sorted(set().union(*(c.fields for c in calls)) - {"exc_info"})
    shown = ", ".join(f"`{f}`" for f in fields)
    return f"| `{event}` | {levels} | {shown} | {' '.join(meanings[event].split())} |"


def calls_of(path: Path) -> Iterator[Call]:
    """The calls ``log.<level>("event", field=…)`` of one file; the name ends in ``log``."""
    module = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        level = level_of(node.func) if isinstance(node, ast.Call) else None
        if level is None or not node.args:
            continue
        first = node.args[0]
        if isinstance(first, ast.Constant) and isinstance(first.value, str):
            fields = {k.arg for k in node.keywords if k.arg}
            yield Call(first.value, level, fields, module)


def level_of(called: ast.expr) -> Optional[str]:
    """The level of ``log.<level>`` or of a method that was chosen before (``log(…)``)."""
    if isinstance(called, ast.Name):
        return "varies" if called.id.endswith("log") else None
    if not isinstance(called, ast.Attribute) or called.attr not in LEVELS:
        return None
    owner = called.value
    name = owner.id if isinstance(owner, ast.Name) else getattr(owner, "attr", "")
    return called.attr if name.endswith("log") else None


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
