"""The live status in a terminal: what the service counts and how well it runs."""

import time
from dataclasses import dataclass, field
from typing import Iterable, List, Mapping, Optional, Sequence, Tuple

import psutil
from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from edgecount.observe.health import CameraState
from edgecount.records import LineTotals, Snapshot, ZoneState
from edgecount.runtime.daemon import CameraView, Service

_TWO_COLUMNS = 110
_STATE_STYLES: Mapping[str, str] = {"online": "green", "degraded": "yellow", "offline": "red"}


@dataclass(frozen=True)
class CameraStatus:
    """One camera as the status shows it.

    Attributes:
        state: ``online``, ``degraded`` or ``offline``.
        reason: Why it is not online; empty when it is.
        fps_target: Rate that it should hold, or None for a file, which has none.
        latency_ms: Capture to count, median of the last seconds; None before it is known.
        dropped: Frames dropped for newer ones since the start.
        snapshot: Its counts.
    """

    state: CameraState
    snapshot: Snapshot
    reason: str = ""
    fps_target: Optional[float] = None
    latency_ms: Optional[float] = None
    dropped: int = 0


@dataclass(frozen=True)
class ServiceStatus:
    """All that the status shows.

    Attributes:
        engine: What runs the network, e.g. ``head-n int8 on tensorrt``.
        broker: Whether the broker is connected, and why not; None where none is configured.
        outbox: Messages that wait for the broker.
        places: People by place.
        cpu_cores: Cores' worth of CPU time that the process uses.
        rss_mb: Memory of the process, MB.
        warnings: Sentences about the whole service (ledger degraded, engine fallback, …).
    """

    device: str
    engine: str
    uptime_s: float
    cameras: Sequence[CameraStatus]
    broker: Optional[Tuple[bool, str]] = None
    outbox: int = 0
    places: Mapping[str, int] = field(default_factory=dict)
    cpu_cores: Optional[float] = None
    rss_mb: Optional[float] = None
    warnings: Tuple[str, ...] = ()


def render(status: ServiceStatus) -> RenderableType:
    """The status for :class:`rich.live.Live`; lays itself out by the width it is given."""
    parts: List[RenderableType] = [_header(status), _Cameras(status.cameras)]
    parts += [Text(f" ! {warning}", style="yellow") for warning in status.warnings]
    return Group(*parts)


class _Cameras:
    """Panels of all cameras: side by side where two fit, else below each other."""

    def __init__(self, cameras: Sequence[CameraStatus]) -> None:
        self._cameras = cameras

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        columns = 2 if options.max_width >= _TWO_COLUMNS and len(self._cameras) > 1 else 1
        grid = Table.grid(expand=True)
        for _ in range(columns):
            grid.add_column(ratio=1)
        panels = [_camera(camera) for camera in self._cameras]
        for i in range(0, len(panels), columns):
            grid.add_row(*panels[i : i + columns])
        yield grid


def _header(status: ServiceStatus) -> RenderableType:
    first = Text.assemble(
        (f" {status.device} ", "bold reverse"), "  ", status.engine, overflow="ellipsis"
    )
    facts = [f"up {_duration(status.uptime_s)}"]
    if status.cpu_cores is not None:
        facts.append(f"{status.cpu_cores:.2f} cores")
    if status.rss_mb is not None:
        facts.append(f"{status.rss_mb:.0f} MB")
    grid = Table.grid(expand=True, padding=(0, 1))
    grid.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    grid.add_column(justify="right", no_wrap=True)
    grid.add_row(first, Text(" · ".join(facts), style="dim"))
    grid.add_row(_places(status.places), _broker(status))
    return grid


def _places(places: Mapping[str, int]) -> Text:
    text = Text(" ")
    for name, people in places.items():
        text.append(f"{name} ", style="dim")
        text.append(f"{people}  ", style="bold cyan")
    return text


def _broker(status: ServiceStatus) -> Text:
    if status.broker is None:
        return Text("no broker", style="dim")
    connected, error = status.broker
    waiting = f", {status.outbox} waiting" if status.outbox else ""
    if connected:
        return Text(f"broker connected{waiting}", style="green")
    return Text(f"broker away{waiting}{f': {error}' if error else ''}", style="red")


def _camera(camera: CameraStatus) -> Panel:
    style = _STATE_STYLES[camera.state]
    title = Text.assemble((f" {camera.snapshot.camera} ", "bold"), (f"● {camera.state} ", style))
    body: List[RenderableType] = [_figures(camera)]
    why = camera.reason or ", ".join(camera.snapshot.degraded)
    if why:
        body.append(Text(why, style=style))
    counts = [*_lines(camera.snapshot.lines), *_zones(camera.snapshot.zones)]
    if counts:
        body += [Text(), *counts]
    return Panel(
        Group(*body),
        title=title,
        title_align="left",
        border_style="dim" if camera.state == "online" else style,
        box=box.ROUNDED,
        padding=(0, 1),
    )


def _figures(camera: CameraStatus) -> Table:
    """FPS, latency, heads and drops in one line of fixed columns, so that nothing jumps."""
    target = "" if camera.fps_target is None else f" / {camera.fps_target:g}"
    latency = "–" if camera.latency_ms is None else f"{camera.latency_ms:.0f} ms"
    grid = Table.grid(expand=True)
    for _ in range(4):
        grid.add_column(ratio=1, no_wrap=True)
    grid.add_row(*(Text(t, style="dim") for t in ("FPS", "latency", "visible", "dropped")))
    grid.add_row(
        Text.assemble((f"{camera.snapshot.fps:.1f}", _rate_style(camera)), (target, "dim")),
        Text(latency),
        Text(str(camera.snapshot.visible), style="bold cyan"),
        Text(str(camera.dropped), style="yellow" if camera.dropped else "dim"),
    )
    return grid


def _rate_style(camera: CameraStatus) -> str:
    if camera.fps_target is None:
        return "bold"
    held = camera.snapshot.fps / camera.fps_target
    return "bold green" if held >= 0.95 else "bold yellow" if held >= 0.8 else "bold red"


def _lines(lines: Mapping[str, LineTotals]) -> Iterable[Table]:
    if lines:
        table = _table("line", "in", "out", "net")
        for name, totals in lines.items():
            table.add_row(name, str(totals.into), str(totals.out), f"{totals.into - totals.out:+d}")
        yield table


def _zones(zones: Mapping[str, ZoneState]) -> Iterable[Table]:
    if zones:
        table = _table("zone", "now", "entered", "left", "longest")
        for name, zone in zones.items():
            longest = _duration(zone.max_dwell_s) if zone.now else "–"
            table.add_row(name, str(zone.now), str(zone.entered), str(zone.left), longest)
        yield table


def _table(what: str, *figures: str) -> Table:
    table = Table(box=None, expand=True, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column(what, ratio=2, no_wrap=True, overflow="ellipsis")
    for figure in figures:
        table.add_column(figure, ratio=1, justify="right", no_wrap=True)
    return table


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d {hours}h"
    if hours:
        return f"{hours}h {minutes}m"
    return f"{minutes}m {rest}s" if minutes else f"{rest}s"


class StatusOf:
    """Reads a service's status; remembers what a rate needs."""

    def __init__(self, began: float) -> None:
        """``began``: monotonic seconds at which the program started."""
        self._began = began
        self._process = psutil.Process()

    def __call__(self, service: "Service") -> ServiceStatus:
        """The status now."""
        recipe, backend = service.plan.model.recipe, service.backend
        return ServiceStatus(
            device=service.settings.device,
            engine=f"{recipe.name} {backend.precision} on {backend.name}",
            uptime_s=time.monotonic() - self._began,
            cameras=[_camera_status(view) for view in service.views()],
            broker=service.broker(),
            outbox=service.backlog(),
            places=service.occupancy(),
            cpu_cores=self._process.cpu_percent() / 100.0,
            rss_mb=self._process.memory_info().rss / 1e6,
            warnings=service.warnings(),
        )


def _camera_status(view: CameraView) -> CameraStatus:
    return CameraStatus(
        state=view.state,
        snapshot=view.snapshot,
        reason=view.reason,
        fps_target=view.fps_target if view.live else None,
        latency_ms=view.latency_ms,
        dropped=view.dropped,
    )
