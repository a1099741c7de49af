"""From the first signal to the last: start, turn, reload, stop."""

import signal
import threading
import time
from collections import deque
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Callable, Deque, List, Optional

import structlog

from edgecount.config import Settings
from edgecount.count.ledger import Ledger
from edgecount.errors import ConfigError, DeviceLostError, EdgecountError, SourceError
from edgecount.observe.metrics import Metrics
from edgecount.observe.telemetry.sampler import Sampler, sources
from edgecount.runtime.annotate import AnnotatingWatcher
from edgecount.runtime.daemon import TURN_S, Service
from edgecount.runtime.plan import Plan, prepare
from edgecount.runtime.systemd import Notifier

_MOST_LOSSES = 3
_LOSSES_WITHIN_S = 60.0

_log = structlog.get_logger(__name__)


class Runner:
    """Runs the service of a configuration that may be read again while it runs."""

    def __init__(
        self,
        load: Callable[[], Settings],
        *,
        duration: Optional[float] = None,
        annotate: Optional[Path] = None,
        show: Callable[[Service], None] = lambda _service: None,
        notifier: Optional[Notifier] = None,
    ) -> None:
        """Prepare to run.

        Args:
            load: Reads the configuration; called again for a reload.
            duration: Stop after this many seconds; None runs until stopped or ended.
            annotate: Video or picture to draw the only camera's counts into.
            show: Called about four times a second, to show the state.
            notifier: systemd's, or another.
        """
        self._load = load
        self._duration = duration
        self._annotate = annotate
        self._show = show
        self._notifier = notifier or Notifier.from_environ()
        self._losses = Losses()
        self._wake = threading.Event()
        self._stop = False
        self._reload = False
        self._watcher: Optional[AnnotatingWatcher] = None
        self._service: Service  # the one that runs; from ``run`` on
        self._telemetry = Sampler(sources())
        self._metrics = Metrics(device=self._telemetry.latest)

    def stop(self) -> None:
        """Stop soon. Safe from a signal handler or any thread."""
        self._stop = True
        self._wake.set()

    def reload(self) -> None:
        """Read the configuration again soon. Safe from a signal handler or any thread."""
        self._reload = True
        self._wake.set()

    def handle_signals(self, *, reloadable: bool) -> None:
        """SIGTERM and SIGINT stop; SIGHUP reloads, or stops where there is no file to read again.

        A terminal that is closed sends SIGHUP, too: a run without a configuration would go
        on unseen and keep the port.
        """

        def stop(_number: int, _frame: Optional[FrameType]) -> None:
            self.stop()

        def reload(_number: int, _frame: Optional[FrameType]) -> None:
            self.reload()

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        signal.signal(signal.SIGHUP, reload if reloadable else stop)

    def run(self) -> None:
        """Run until stopped, until the duration is over, or until all files have ended.

        Raises:
            ConfigError: The configuration is wrong.
            ModelError: The model is wrong.
            SourceError: A source failed for good, and no other is left.
            EdgecountError: The service cannot go on.
        """
        plan = prepare(self._load(), self._metrics.stage)
        self._service = self._made(plan, None)
        self._telemetry.start()
        try:
            self._service.start()
            self._turn_until_done()
        finally:
            # Not in a reload, which stops a service too: systemd would end the process.
            self._notifier.stopping()
            self._service.stop()
            self._telemetry.close()
            if self._watcher is not None:
                self._watcher.close()
        self._show(self._service)
        failures = self._service.failures()
        if failures and len(failures) == len(self._service.settings.cameras):
            raise SourceError("; ".join(failures), retry=False)

    def _turn_until_done(self) -> None:
        began = time.monotonic()
        while self._turn() and not self._stop:
            self._show(self._service)
            if self._duration is not None and time.monotonic() - began >= self._duration:
                break
            if self._reload:
                self._reload = False
                self._try_reload()
            self._wake.wait(TURN_S)
            self._wake.clear()

    def _turn(self) -> bool:
        """One turn of the service; one whose device was lost is replaced by a new one.

        Where this process cannot open the device any more, that ends it: systemd starts another.
        """
        try:
            return self._service.turn()
        except DeviceLostError as error:
            if not self._losses.again(time.monotonic()):
                raise
            _log.exception("device_lost", reason=str(error))
            self._notifier.status(f"the device was lost and is opened again: {error}")
            old = self._service
            ledger = old.stop(keep_ledger=True, because=f"the device was lost: {error}")
            plan = prepare(old.settings, self._metrics.stage, old.plan.model)
            self._replace(replace(plan, reopens=True), ledger)
            return True

    def _try_reload(self) -> None:
        """Go on with the configuration as it is now, or as before where that is bad."""
        self._notifier.reloading()
        old = self._service
        try:
            plan = prepare(self._load(), self._metrics.stage, old.plan.model)
        except EdgecountError as error:
            _log.error("reload_refused", reason=str(error))
            self._notifier.ready("the new configuration is bad; the old one goes on")
            return
        keep = _same_ledger(old.settings, plan.settings)
        ledger = old.stop(keep_ledger=keep)
        try:
            self._replace(plan, ledger)
        except EdgecountError as error:
            _log.error("reload_refused", reason=str(error))
            self._service.stop(keep_ledger=keep)
            self._replace(prepare(old.settings, self._metrics.stage, old.plan.model), ledger)
            return
        _log.info("reloaded")

    def _replace(self, plan: Plan, ledger: Optional[Ledger]) -> None:
        # Kept before it starts: whatever happens then, this is the one to stop.
        self._service = self._made(plan, ledger)
        self._service.start()

    def _made(self, plan: Plan, ledger: Optional[Ledger]) -> Service:
        return Service(
            plan,
            self._metrics,
            ledger=ledger,
            on_reload=self.reload,
            notifier=self._notifier,
            watchers=self._watchers(plan),
        )

    def _watchers(self, plan: Plan) -> List[AnnotatingWatcher]:
        if self._annotate is None:
            return []
        if self._watcher is None:
            if len(plan.cameras) != 1:
                raise ConfigError("--annotate draws one camera; the configuration has several")
            camera = plan.cameras[0]
            fps = camera.source.fps or camera.settings.max_fps or camera.settings.fps
            self._watcher = AnnotatingWatcher(self._annotate, camera.settings, fps)
        return [self._watcher]


class Losses:
    """Decides whether a lost device is worth another try.

    What comes back twice and is lost again within the minute needs a new process, and
    that is systemd's to give.
    """

    def __init__(self) -> None:
        self._times: Deque[float] = deque(maxlen=_MOST_LOSSES)

    def again(self, now: float) -> bool:
        """Note a loss at ``now``, monotonic seconds; false for the third within a minute."""
        self._times.append(now)
        return len(self._times) < _MOST_LOSSES or now - self._times[0] > _LOSSES_WITHIN_S


def _same_ledger(old: Settings, new: Settings) -> bool:
    """Whether a ledger that was opened for ``old`` serves ``new`` as well."""
    zones = [s.reset.timezone if s.reset else None for s in (old, new)]
    return old.ledger == new.ledger and bool(old.mqtt) == bool(new.mqtt) and zones[0] == zones[1]
