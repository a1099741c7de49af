"""What a source of frames is.

A source is one file in this package. Besides the class it holds

- ``Options``: a frozen pydantic model (:class:`edgecount.config.Strict`), the keys that
  ``capture:`` of a camera may have;
- ``claims(source: str) -> bool``: whether a source string is for this kind. Kinds must
  not claim the same string; one that is only chosen by ``kind:`` claims nothing;
- ``create(camera, source, options, *, clock, max_fps) -> Source``: makes it and opens
  nothing; raises :class:`~edgecount.errors.ConfigError` where the source string or the
  options cannot be right. ``clock`` is a :class:`~edgecount.capture.Clock`; ``max_fps``
  is how many frames per second ``read`` returns at most, None for all.
"""

from typing import Optional

from typing_extensions import Protocol

from edgecount.records import Frame


class Source(Protocol):
    """One camera, file or stream. Used from one thread; ``interrupt`` from any.

    After a :class:`~edgecount.errors.SourceError` with ``retry`` a source may be closed
    and opened again as often as one likes; the index of its frames goes on rising.

    Attributes:
        live: True when frames that are not taken are lost (a camera), false when the
            source waits (a file).
        fps: Nominal rate in frames per second, or None where the source does not say;
            known after ``open``.
        label: The source as it may be shown and logged: passwords are masked.
    """

    live: bool
    fps: Optional[float]
    label: str

    @property
    def skipped(self) -> int:
        """Frames that ``max_fps`` left out so far."""
        ...

    def open(self) -> None:
        """Connect, and drop what is stale.

        Raises:
            SourceError: With ``retry`` false where trying again cannot help.
        """
        ...

    def read(self) -> Optional[Frame]:
        """The next frame that ``max_fps`` lets through, or None at the end of a file.

        Returns within the source's time-out even when the other side hangs.

        Raises:
            SourceError: The stream is lost; ``close`` and ``open`` again.
        """
        ...

    def interrupt(self) -> None:
        """Make a ``read`` or ``open`` that is under way return soon, if it can."""
        ...

    def close(self) -> None:
        """Let go of the device or connection. May be called twice."""
        ...
