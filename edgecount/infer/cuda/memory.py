"""One budget for all device memory: a hard limit, with names for what holds how much."""

import contextlib
from typing import Dict, Iterator

from edgecount.errors import EngineError

DEFAULT_SHARE = 0.7
_MIB = 1024.0 * 1024.0


class MemoryBudget:
    """Counts the bytes that are taken and refuses what would exceed the limit.

    Not safe from several threads: memory is taken while a backend is built, by one.
    """

    def __init__(self, total: int, share: float = DEFAULT_SHARE, elsewhere: int = 0) -> None:
        """A limit of ``share`` of ``total`` bytes.

        Args:
            total: The device's memory, bytes.
            share: Part of it that may be used.
            elsewhere: Bytes that the pipeline before this one holds as long as both are there.
        """
        self.limit = int(total * share)
        self._total = total
        self._elsewhere = elsewhere
        self._held: Dict[str, int] = {}
        self._label = "other"
        self._sealed = False

    @property
    def used(self) -> int:
        """Bytes taken."""
        return sum(self._held.values())

    @property
    def left(self) -> int:
        """Bytes that may still be taken."""
        return max(0, self.limit - self._elsewhere - self.used)

    def held(self) -> Dict[str, int]:
        """Bytes by what they are for."""
        return dict(self._held)

    @contextlib.contextmanager
    def labelled(self, what: str) -> Iterator[None]:
        """What is reserved inside is for ``what``."""
        before, self._label = self._label, what
        try:
            yield
        finally:
            self._label = before

    def reserve(self, size: int) -> None:
        """Take ``size`` bytes.

        Raises:
            EngineError: They are more than is left, or the budget is sealed.
        """
        if self._sealed:
            raise EngineError(
                f"{size:,} bytes of device memory were asked for while frames are processed; "
                "everything must be taken at the start: please report this"
            )
        if size > self.left:
            raise EngineError(self._refusal(size))
        self._held[self._label] = self._held.get(self._label, 0) + size

    def give_back(self, size: int) -> None:
        """``size`` bytes, reserved under the present label or another, are free again."""
        for label in (self._label, *self._held):
            taken = min(size, self._held.get(label, 0))
            if taken:
                self._held[label] -= taken
                size -= taken

    def seal(self) -> None:
        """Refuse everything from now on."""
        self._sealed = True

    @contextlib.contextmanager
    def growing(self, what: str) -> Iterator[None]:
        """Allow what must be taken late after all: a camera sends larger pictures."""
        sealed, self._sealed = self._sealed, False
        try:
            with self.labelled(what):
                yield
        finally:
            self._sealed = sealed

    def _refusal(self, size: int) -> str:
        held = ", ".join(f"{what} {n / _MIB:.1f} MiB" for what, n in self._held.items() if n)
        hint = "use a smaller input_size or fewer cameras"
        if self._elsewhere and size <= self.limit - self.used:
            hint = (
                f"the pipeline that counts now holds {self._elsewhere / _MIB:.1f} MiB and goes on; "
                "this one would fit without it: it takes over at the next start"
            )
        return (
            f"device memory: {self._label} needs {size / _MIB:.1f} MiB, but only "
            f"{self.left / _MIB:.1f} MiB of {self.limit / _MIB:.1f} MiB are left "
            f"({self.limit / self._total:.0%} of the device's {self._total / _MIB:.1f} MiB; "
            f"{held or 'nothing is taken yet'}): {hint}"
        )
