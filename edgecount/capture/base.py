"""What a source of frames is."""

from typing import Optional

from typing_extensions import Protocol

from edgecount.records import Frame


class Source(Protocol):
    """One camera, file or stream. Used from one thread; ``interrupt`` from any.

    An implementation is one file beside this one, with ``Options`` (a frozen pydantic
    model), ``claims(source) -> bool`` (is this source string for me?) and
    ``create(camera, source, options) -> Source``.

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

    def open(self) -> None:
        """Connect, and drop what is stale.

        Raises:
            SourceError: With ``retry`` false where trying again cannot help.
        """
        ...

    def read(self) -> Optional[Frame]:
        """The next frame, or None at the end of a file.

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
