"""A picture on its way into the CUDA pipeline, and what comes out for it."""

from dataclasses import dataclass
from typing import Optional

import numpy as np
from typing_extensions import Literal

from edgecount.records import Detections, DeviceFrame, Frame, FrameInfo, Tracks, UInt8Array

Layout = Literal["bgr", "nv12"]
Place = Literal["pageable", "pinned", "device"]


@dataclass(frozen=True)
class Picture:
    """One picture, and where its bytes lie.

    Attributes:
        info: Of the frame; ``width`` and ``height`` are the picture's.
        camera: Index of its camera; negative for a picture that is not to be tracked.
        dt: Seconds of stream time since the camera's last picture; 0 for its first.
        layout: ``bgr``: (height, width, 3) uint8. ``nv12``: (height, width) luma, then
            (height / 2, width) interleaved chroma, both with the same pitch.
        pitch: Bytes from one row to the next.
        place: ``pageable`` host memory (it is copied), ``pinned`` host memory of this
            device, or ``device`` memory.
        pointer: Address of the first row; of any place.
        chroma: Address of the chroma of an ``nv12`` picture on the device; behind the luma
            where None.
        array: The pageable bytes, C-contiguous; None for other places.
        owner: Kept alive while the device reads the picture.
    """

    info: FrameInfo
    camera: int
    dt: float
    layout: Layout
    pitch: int
    place: Place
    pointer: int
    chroma: Optional[int] = None
    array: Optional[UInt8Array] = None
    owner: Optional[object] = None

    @property
    def rows(self) -> int:
        """Rows of ``pitch`` bytes, chroma included."""
        height = self.info.height
        return height + height // 2 if self.layout == "nv12" else height

    @property
    def size(self) -> int:
        """Bytes from the first row to the end of the last."""
        return self.pitch * self.rows


@dataclass(frozen=True)
class Found:
    """What was found in a picture.

    Attributes:
        tracks: None where the host tracks.
        detections: None where they were not asked for.
    """

    tracks: Optional[Tracks]
    detections: Optional[Detections] = None


def of_frame(frame: Frame, camera: int, dt: float, device: int) -> Picture:
    """A frame as it comes from a source.

    Args:
        frame: A :class:`DeviceFrame` of this device stays there; others lie in host memory.
        camera: Index of its camera.
        dt: Seconds of stream time since the camera's last frame.
        device: Number of the device.
    """
    if isinstance(frame, DeviceFrame) and frame.surface.device == device:
        surface = frame.surface
        return Picture(
            frame.info,
            camera,
            dt,
            "nv12",
            surface.pitch,
            "device",
            surface.luma,
            surface.chroma,
            owner=surface.owner,
        )
    image = np.ascontiguousarray(frame.image)
    return Picture(
        frame.info,
        camera,
        dt,
        "bgr",
        3 * frame.info.width,
        "pageable",
        image.ctypes.data,
        array=image,
    )
