"""Event ids that sort in the order in which they were made."""

import os
import re
from typing import Callable

from ulid import ULID

_RANDOM_BITS = 80
_RANDOM_BYTES = _RANDOM_BITS // 8
_LAST_MS = (1 << 48) - 1
_ID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")


def is_id(text: str) -> bool:
    """Whether ``text`` is a ULID."""
    return _ID.fullmatch(text) is not None


class IdFactory:
    """Makes ULIDs (github.com/ulid/spec, monotonicity) that rise strictly, whatever the clock does.

    Within one millisecond, and while the clock runs backwards, the last id plus one is
    given. python-ulid before 3.0 does not do that itself, and no version guards against
    a clock that goes back. Not thread-safe.
    """

    def __init__(self, entropy: Callable[[int], bytes] = os.urandom) -> None:
        self._entropy = entropy
        self._last = 0

    def make(self, ts: float) -> str:
        """A new id for wall-clock time ``ts``, UTC seconds since 1970."""
        ms = min(max(int(ts * 1000), 0), _LAST_MS)
        fresh = (ms << _RANDOM_BITS) | int.from_bytes(self._entropy(_RANDOM_BYTES), "big")
        self._last = fresh if ms > self._last >> _RANDOM_BITS else self._last + 1
        return str(ULID.from_bytes(self._last.to_bytes(16, "big")))

    def resume(self, newest: str) -> None:
        """Continue behind ``newest``, the last id that was given before a restart."""
        self._last = max(self._last, int.from_bytes(ULID.from_str(newest).bytes, "big"))
