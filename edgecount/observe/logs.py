"""Logs: one event a line, JSON for machines or coloured text for people.

Events have stable names in snake_case (``docs/events.md`` lists them) and carry what
varies as fields: ``log.warning("camera_lost", camera="door", reason=...)``. Secrets are
masked in every field, tracebacks included, whoever logged: the standard library's loggers
(paho and others) go through the same chain.

This file is the only one that touches the process-wide state of ``logging``,
``structlog`` and the exception hooks.
"""

import logging
import sys
import threading
import time
from collections import OrderedDict
from typing import Any, Callable, List, Optional, TextIO, Tuple

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger
from typing_extensions import Literal

from edgecount.observe.redaction import Redact, redact_deep

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["auto", "json", "console"]
_log = structlog.get_logger(__name__)


def configure(
    level: Level = "info",
    format: Format = "auto",  # noqa: A002 - named as in the configuration
    redact: Redact = str,
    stream: Optional[TextIO] = None,
) -> None:
    """Set up the process's logs; may be called again, when the configuration was reloaded.

    Args:
        level: Least level that is written.
        format: ``auto`` is JSON unless ``stream`` is a terminal.
        redact: Masks secrets; applied to every value last of all.
        stream: Where to; stderr where not given.
    """
    target = sys.stderr if stream is None else stream
    handler = logging.StreamHandler(target)
    handler.setFormatter(_formatter(format == "json" or not _shown(format, target), redact))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(True)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_common(),
            RateLimit(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        # A cached logger would keep the old chain after a reload.
        cache_logger_on_first_use=False,
    )
    _log_crashes()


class RateLimit:
    """Drops repeats of an event: after ``burst`` of them, one per ``interval_s`` passes.

    The one that passes tells in ``suppressed`` how many were dropped before it. Events are
    the same when their name, level and camera are.

    Args:
        burst: How many pass before the limit sets in.
        interval_s: Afterwards, seconds between two that pass; the burst is granted again
            after as long without any.
        clock: Monotonic seconds.
        remembered: Most events that are told apart; the longest unseen is forgotten.
    """

    def __init__(
        self,
        burst: int = 5,
        interval_s: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
        remembered: int = 512,
    ) -> None:
        self._burst = burst
        self._interval_s = interval_s
        self._clock = clock
        self._remembered = remembered
        self._seen: OrderedDict[Tuple[str, str, str], _Repeats] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, _logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
        """A structlog processor. Raises structlog.DropEvent for what is dropped."""
        key = (str(event.get("event")), name, str(event.get("camera", "")))
        with self._lock:
            suppressed = self._repeats(key).admit(self._clock(), self._burst, self._interval_s)
        if suppressed is None:
            raise structlog.DropEvent
        if suppressed:
            event["suppressed"] = suppressed
        return event

    def _repeats(self, key: Tuple[str, str, str]) -> "_Repeats":
        repeats = self._seen.setdefault(key, _Repeats())
        self._seen.move_to_end(key)
        if len(self._seen) > self._remembered:
            self._seen.popitem(last=False)
        return repeats


class _Repeats:
    """How often one event was seen of late."""

    __slots__ = ("last", "passed", "passed_at", "suppressed")

    def __init__(self) -> None:
        self.last = float("-inf")
        self.passed = 0
        self.passed_at = float("-inf")
        self.suppressed = 0

    def admit(self, now: float, burst: int, interval_s: float) -> Optional[int]:
        """How many were suppressed before this one, or None when this one is suppressed too."""
        if now - self.last >= interval_s:
            self.passed = 0
        self.last = now
        if self.passed >= burst and now - self.passed_at < interval_s:
            self.suppressed += 1
            return None
        self.passed += 1
        self.passed_at = now
        suppressed, self.suppressed = self.suppressed, 0
        return suppressed


def _shown(format: Format, target: TextIO) -> bool:  # noqa: A002
    return format == "console" or target.isatty()


def _common() -> List[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
        structlog.processors.StackInfoRenderer(),
    ]


def _formatter(as_json: bool, redact: Redact) -> logging.Formatter:
    renderer: Processor = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if as_json
        else structlog.dev.ConsoleRenderer(
            timestamp_key="ts", exception_formatter=structlog.dev.plain_traceback
        )
    )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*_common(), _foreign],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            # Tracebacks become text here, so that they are masked like everything else.
            structlog.processors.format_exc_info,
            _Mask(redact),
            _ordered,
            renderer,
        ],
    )


class _Mask:
    def __init__(self, redact: Redact) -> None:
        self._redact = redact

    def __call__(self, _logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
        masked: EventDict = redact_deep(event, self._redact)
        return masked


def _ordered(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
    first = {key: event.pop(key) for key in ("ts", "level", "event", "camera") if key in event}
    return {**first, **event}


def _foreign(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
    """A library's log line is free text; it becomes one event of ours with that text."""
    record: logging.LogRecord = event["_record"]
    return {**event, "event": "library_log", "library": record.name, "message": event["event"]}


def _log_crashes() -> None:
    """Uncaught exceptions are logged, and so redacted, instead of printed raw."""

    def thread_crashed(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None and not issubclass(args.exc_type, SystemExit):
            thread = args.thread.name if args.thread else "?"
            _log.error("thread_crashed", thread=thread, exc_info=args.exc_value)

    threading.excepthook = thread_crashed
    sys.excepthook = _process_crashed


def _process_crashed(kind: Any, error: BaseException, trace: Any) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    _log.error("process_crashed", exc_info=(kind, error, trace))
