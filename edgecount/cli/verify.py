"""``edgecount verify``: count by hand beside the running service, and compare."""

import json
import os
import select
import sys
import time
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

import click

from edgecount.cli._options import config_option, json_option

_KEYS = {"i": "in", "o": "out"}
_UNDO, _QUIT = "u", "q"
# The last crossings have to become certain and be committed.
_SETTLE_S = 3.0


@click.command()
@config_option()
@click.option("--ledger", type=click.Path(path_type=Path), help="The ledger's file, instead of -c.")
@click.option("--line", required=True, metavar="[CAMERA.]LINE", help="The line to watch.")
@click.option("--minutes", type=click.FloatRange(min=0.0), default=10.0, show_default=True)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0.0),
    default=3.0,
    show_default=True,
    help="Seconds between a key and the crossing that it stands for, at most.",
)
@json_option()
def command(
    config: Optional[Path],
    ledger: Optional[Path],
    line: str,
    minutes: float,
    tolerance: float,
    as_json: bool,
) -> None:
    """Check a line on site: stand at it and press a key for each person who crosses.

    i: somebody went in, o: somebody went out, u: take the last one back, q: done. The
    service must be running here; what it counted meanwhile is read from its ledger.
    """
    from edgecount.config import load
    from edgecount.count import query
    from edgecount.count.ledger import ledger_path
    from edgecount.toolchain.verify import compare

    configured = load(config).ledger.path if config else None
    path = ledger_path(ledger or configured, os.environ)
    query.events(path, 0.0, 0.0)  # fails now rather than after ten minutes
    click.echo("i = in, o = out, u = undo, q = done", err=True)
    started = time.time()
    presses = _count(started + minutes * 60.0)
    ended = time.time()
    click.echo(f"waiting {_SETTLE_S:g} s for the last crossings …", err=True)
    time.sleep(_SETTLE_S)
    events = _events(query.events(path, started - tolerance, ended + tolerance), line)
    _report(compare(presses, events, tolerance), as_json)


def _events(found: List[Any], line: str) -> Dict[str, List[float]]:
    camera, _, name = line.rpartition(".")
    times: Dict[str, List[float]] = {"in": [], "out": []}
    for event in found:
        if event.kind == "line" and event.name == name and camera in ("", event.camera):
            times[event.direction].append(event.ts)
    return times


def _count(until: float) -> Dict[str, List[float]]:
    """Read keys until the time is over; each with the moment of its press."""
    pressed: List[Tuple[str, float]] = []
    with _single_keys():
        while time.time() < until:
            ready, _, _ = select.select([sys.stdin], [], [], min(1.0, until - time.time()))
            if not ready:
                continue
            key = os.read(sys.stdin.fileno(), 1).decode("ascii", "ignore")
            if key in ("", _QUIT):
                break
            if key in _KEYS:
                pressed.append((_KEYS[key], time.time()))
            elif key == _UNDO and pressed:
                pressed.pop()
            _show(pressed)
    click.echo("", err=True)
    return {d: [at for way, at in pressed if way == d] for d in ("in", "out")}


@contextmanager
def _single_keys() -> Iterator[None]:
    """Keys without Enter and without echo, where stdin is a terminal."""
    if not sys.stdin.isatty():
        yield
        return
    import termios
    import tty

    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _show(pressed: List[Tuple[str, float]]) -> None:
    ways = [way for way, _ in pressed]
    click.echo(f"\rin {ways.count('in')}   out {ways.count('out')}   ", nl=False, err=True)


def _report(result: Dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(
            json.dumps(
                {
                    way: {
                        "by_hand": c.by_hand,
                        "counted": c.counted,
                        "missed": list(c.missed),
                        "extra": list(c.extra),
                        "accuracy": round(c.accuracy, 4),
                    }
                    for way, c in result.items()
                }
            )
        )
        return
    for way, c in result.items():
        click.echo(
            f"{way}: by hand {c.by_hand}, counted {c.counted}, missed {len(c.missed)}, "
            f"extra {len(c.extra)}, accuracy {c.accuracy:.1%}"
        )
        for word, times in (("missed", c.missed), ("extra", c.extra)):
            for at in times:
                click.echo(f"  {word} at {datetime.fromtimestamp(at).astimezone():%H:%M:%S}")
