"""``edgecount run``: count people."""

import faulthandler
import os
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Callable, ContextManager, Optional, Tuple

import click

from edgecount.cli._options import config_option, model_option, source_option

if TYPE_CHECKING:
    from edgecount.config import Settings
    from edgecount.runtime.daemon import Service


@click.command()
@config_option()
@source_option()
@model_option()
@click.option("--duration", type=click.FloatRange(min=0.1), help="Stop after so many seconds.")
@click.option(
    "--annotate",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Draw what is counted into a video (.mp4), or the fullest frame into a picture (.png).",
)
@click.option("--realtime", is_flag=True, help="Play a file at its own rate.")
def command(
    config: Optional[Path],
    source: Optional[str],
    model: Optional[str],
    duration: Optional[float],
    annotate: Optional[Path],
    realtime: bool,
) -> None:
    """Count people: at a line across the middle of one source, or as a configuration says."""
    from edgecount.capture import left_behind
    from edgecount.observe import logs
    from edgecount.redact import Redactor
    from edgecount.runtime.overrides import settings_from
    from edgecount.runtime.runner import Runner

    def load() -> "Settings":
        settings = settings_from(config, source, model, realtime=realtime)
        logs.configure(settings.log.level, settings.log.format, Redactor(settings.secrets()))
        return settings

    faulthandler.enable()  # a watchdog's SIGABRT then shows where every thread was
    display, show = _display()
    runner = Runner(load, duration=duration, annotate=annotate, show=show)
    runner.handle_signals(reloadable=config is not None)
    with display:
        runner.run()
    if left_behind():
        # A driver still holds a thread; unloading its library under it would abort the process.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _display() -> Tuple[ContextManager[object], Callable[["Service"], None]]:
    """A live status where stdout is a terminal; nothing where it is not."""
    if not sys.stdout.isatty():
        return nullcontext(), lambda _service: None
    from rich.console import Console
    from rich.live import Live

    from edgecount.cli._status import StatusOf, render

    live = Live(console=Console(), auto_refresh=False, redirect_stderr=True)
    status_of = StatusOf(time.monotonic())
    return live, lambda service: live.update(render(status_of(service)), refresh=True)
