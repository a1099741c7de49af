"""What turns frames into tracks, and the parts a CPU backend is made of."""

from typing import List, Optional, Sequence

from typing_extensions import Protocol

from edgecount.records import Detections, Frame, Tracked, UInt8Array


class Detector(Protocol):
    """Network and NMS: pictures in, detections out. Safe to call from several threads."""

    def detect(self, images: Sequence[UInt8Array]) -> List[Detections]:
        """Detect in each picture ((H, W, 3) uint8 BGR, sizes may differ).

        Raises:
            EngineError: The network could not be run.
        """
        ...


class Backend(Protocol):
    """Frames in, tracks out, several batches in flight.

    ``submit`` and ``collect`` are called from two threads. Batches come back in the
    order of submission, so the tracker of each camera sees its frames in order.

    Attributes:
        name: For ``build_info`` and the status line, e.g. ``onnxruntime-cpu``.
        precision: ``fp32``, ``fp16`` or ``int8``.
        depth: Batches that may be in flight before ``submit`` waits.
    """

    name: str
    precision: str
    depth: int

    def submit(self, batch: Sequence[Frame]) -> None:
        """Start work on a batch (at most one frame a camera); waits while ``depth`` are in flight.

        Raises:
            EngineError: The device failed.
        """
        ...

    def collect(self, timeout: float) -> Optional[List[Tracked]]:
        """The oldest batch's results, or None when none was ready within ``timeout`` seconds.

        Raises:
            EngineError: The batch failed; it is gone, later ones may succeed.
        """
        ...

    def reset(self, camera: str) -> None:
        """Forget the tracks of one camera (it was away, or its settings changed)."""
        ...

    def close(self) -> None:
        """Stop workers and free the device. May be called twice."""
        ...
