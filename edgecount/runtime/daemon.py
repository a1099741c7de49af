"""The composition root: the whole service, started, turned, reloaded and stopped."""

from typing import Optional, Sequence

import structlog

from edgecount.count.ledger import Ledger
from edgecount.count.occupancy import Places
from edgecount.observe.health import Health
from edgecount.observe.http import HttpServer
from edgecount.observe.metrics import Metrics
from edgecount.redact import Redactor
from edgecount.runtime.core import Core, Watcher
from edgecount.runtime.plan import Plan
from edgecount.runtime.systemd import Notifier, Watchdog

TURN_S = 0.25
_MAIN_LIMIT_S = 10.0

_log = structlog.get_logger(__name__)


class Service:
    """Runs a configuration until it is stopped, or until its files have ended.

    The owner calls ``start``, then ``turn`` about four times a second, then ``stop``; all
    from one thread. The pipeline runs in threads of its own.
    """

    def __init__(
        self,
        plan: Plan,
        metrics: Metrics,
        *,
        notifier: Optional[Notifier] = None,
        watchers: Sequence[Watcher] = (),
    ) -> None:
        """Prepare to run ``plan``.

        Args:
            plan: What runs; its model's timer is ``metrics.stage``.
            metrics: Where everything is measured.
            notifier: Told of READY, the watchdog's beats and STOPPING.
            watchers: See every frame.
        """
        self.metrics = metrics
        self.health = Health()
        self._redact = Redactor(plan.settings.secrets())
        self._notifier = notifier or Notifier(None)
        self._watchers = watchers
        self._plan = plan
        self._core: Optional[Core] = None
        self._ledger: Optional[Ledger] = None
        self._places = Places(plan.settings.places)
        self._http: Optional[HttpServer] = None
        self._watchdog: Optional[Watchdog] = None
