"""``edgecount counts``: read counts back from the ledger."""

import csv
import io
import json
import os
import time
from dataclasses import asdict
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import click

from edgecount.cli._options import config_option, json_option

_NOTHING = "nothing was counted in that time"


@click.command()
@config_option()
@click.option("--ledger", type=click.Path(path_type=Path), help="The ledger's file, instead of -c.")
@click.option("--since", default="today", show_default=True, metavar="TIME")
@click.option("--until", default=None, metavar="TIME", help="Now where not given.")
@click.option(
    "--per",
    type=click.Choice(["minute", "hour", "day"]),
    default="hour",
    show_default=True,
    help="Length of the periods; the one that is not over is shown up to now.",
)
@click.option("--events", "what", flag_value="events", help="Single events instead of figures.")
@click.option("--dwell", "what", flag_value="dwell", help="How long people stayed in zones.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@json_option()
def command(
    config: Optional[Path],
    ledger: Optional[Path],
    since: str,
    until: Optional[str],
    per: str,
    what: Optional[str],
    as_csv: bool,
    as_json: bool,
) -> None:
    """Print counts from the ledger, also while the service runs.

    TIME is a date (2026-11-24), a date and time in quotes, today, yesterday, or a stretch
    before now: 30min, 12h, 7d.
    """
    from edgecount.count import query

    path, zone = _place(config, ledger)
    now = time.time()
    start = query.parse_time(since, now, zone)
    end = query.parse_time(until, now, zone) if until else now
    if what == "events":
        found: List[Any] = list(query.events(path, start, end))
    elif what == "dwell":
        found = list(query.dwell(path, start, end))
    else:
        found = list(query.figures(path, per, start, end, zone))
    rows = [_readable(asdict(row), zone) for row in found]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    elif as_csv:
        click.echo(_csv(rows), nl=False)
    elif rows:
        _table(rows)
    else:
        click.echo(_NOTHING if what else _why_no_figures(path, start, end))


def _place(config: Optional[Path], ledger: Optional[Path]) -> Tuple[Path, tzinfo]:
    """Where the ledger is, and in which time zone a day is meant."""
    from edgecount.config import load
    from edgecount.count.ledger import ledger_path
    from edgecount.timezones import zone

    settings = load(config) if config else None
    name = settings.reset.timezone if settings and settings.reset else "UTC"
    configured = settings.ledger.path if settings else None
    return ledger_path(ledger or configured, os.environ), zone(name)


def _readable(row: Dict[str, Any], zone: tzinfo) -> Dict[str, Any]:
    """Times as ISO 8601 beside the other columns; ``into`` is called ``in`` as on the wire."""
    renamed = {"in" if key == "into" else key: value for key, value in row.items()}
    for key in ("start", "ts"):
        if key in renamed:
            moment = datetime.fromtimestamp(renamed[key], zone)
            renamed[key] = moment.isoformat(timespec="milliseconds" if key == "ts" else "seconds")
    return renamed


def _csv(rows: List[Dict[str, Any]]) -> str:
    if not rows:
        return ""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _why_no_figures(path: Path, start: float, end: float) -> str:
    from edgecount.count import query

    # Figures are of full minutes, and a clip may be over before the first.
    count = len(query.events(path, start, end))
    if not count:
        return _NOTHING
    return f"{count} events, but no full minute of them yet: --events shows them"


def _table(rows: List[Dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*rows[0])
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console().print(table)
