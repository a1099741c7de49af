"""When totals start again at zero. Pure logic over wall-clock times.

    schedule = DailyReset(settings.reset.at, settings.reset.timezone)
    due = schedule.due(now=time.time(), last=ledger.since, uptime=seconds since this start)
    if due: ledger.reset(due.at, keep_session=due.keep_session)

Nothing is remembered here: what is due follows from the time of the last reset, which the
ledger keeps. So a reset that fell into a time without power is made up for, one is never
made twice when the clock is set back, and a board without a battery, which boots in 1970,
resets nothing until its clock is right.
"""

from dataclasses import dataclass
from datetime import datetime, time, timedelta, timezone
from typing import Optional

from edgecount.timezones import zone

# Before 2020 a clock was never set.
_CLOCK_IS_SET = 1_577_836_800.0
# A last reset further in the future than this was stamped by a wrong clock.
_NONSENSE_S = 36 * 3600.0


@dataclass(frozen=True)
class Due:
    """A reset to make now.

    Attributes:
        at: When the period began, UTC seconds since 1970.
        keep_session: This run began after that, so what it counted belongs to the new period.
    """

    at: float
    keep_session: bool


class DailyReset:
    """A time of day in a time zone.

    On the day on which the clocks go forward a time that does not exist means the
    moment as many minutes after midnight standard time (02:30 is 03:30 summer time); on
    the day on which they go back the first of two equal times counts.

    Args:
        at: ``HH:MM``.
        timezone: IANA name. Raises ValueError where there is none.
    """

    def __init__(self, at: str, timezone: str) -> None:
        self._at = time(int(at[:2]), int(at[3:]))
        self._zone = zone(timezone)

    def latest(self, now: float) -> float:
        """The newest moment of reset that is not after ``now``, UTC seconds since 1970."""
        today = datetime.fromtimestamp(now, self._zone).date()
        for back in range(3):
            day = today - timedelta(days=back)
            moment = datetime.combine(day, self._at, self._zone).astimezone(timezone.utc)
            if moment.timestamp() <= now:
                return moment.timestamp()
        raise AssertionError("one of the last days had a reset")

    def due(self, now: float, last: float, uptime: float) -> Optional[Due]:
        """What is to be done now.

        Args:
            now: Wall clock, UTC seconds since 1970.
            last: When totals were last reset, by the clock of that time.
            uptime: Monotonic seconds since this run began.
        """
        if now < _CLOCK_IS_SET:
            return None
        at = self.latest(now)
        if last >= at and last - now <= _NONSENSE_S:
            return None
        return Due(at, keep_session=now - uptime >= at)
