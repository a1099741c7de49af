"""What turns frames into tracks, and the parts a CPU backend is made of."""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, List, Optional, Sequence, Tuple

from pydantic import BaseModel
from typing_extensions import Protocol

from edgecount.config import ModelSettings, Point, TileSettings
from edgecount.errors import EngineError
from edgecount.infer.heads.base import Candidates
from edgecount.infer.recipe import Recipe
from edgecount.infer.tiles import Tile
from edgecount.records import Detections, Frame, StageTimer, Tracked, UInt8Array


@dataclass(frozen=True)
class CameraSpec:
    """What a backend must know of a camera.

    Attributes:
        name: Name of the camera.
        tracker_kind: File name of a tracker of ``edgecount/track``.
        tracker_options: That tracker's validated ``Options``.
        ignore: Polygons, normalised: detections whose anchor lies in one are dropped.
        tiles: How its frames are cut; None where the network sees them whole.
    """

    name: str
    tracker_kind: str
    tracker_options: BaseModel
    ignore: Sequence[Sequence[Point]]
    tiles: Optional[TileSettings] = None

    @property
    def pictures(self) -> int:
        """Pictures for the network that a frame becomes."""
        return 1 if self.tiles is None else self.tiles.pictures


def pictures_at_once(cameras: Sequence[CameraSpec], limit: int) -> int:
    """Pictures that a batch of a network is made for.

    Args:
        cameras: All cameras.
        limit: More are not worth while; a frame in more tiles is a batch all the same.
    """
    each = [camera.pictures for camera in cameras]
    return max([1, *each, min(limit, sum(each))])


def frames_at_once(cameras: Sequence[CameraSpec], pictures: int) -> int:
    """Frames, each of another camera, that a batch of so many pictures holds whichever they are.

    Raises:
        EngineError: The frames of a camera are cut into more.
    """
    each = sorted((camera.pictures for camera in cameras), reverse=True)
    if not each or each[0] == 1:
        return pictures
    frames = sum(total <= pictures for total in itertools.accumulate(each))
    if frames:
        return frames
    name = next(camera.name for camera in cameras if camera.pictures == each[0])
    raise EngineError(
        f"a frame of camera {name!r} is {each[0]} pictures for the network, which takes "
        f"{pictures} at once: give the model's file an open batch axis, cut the frame into "
        "fewer tiles, or count on the CPU (model.backend: cpu)"
    )


@dataclass(frozen=True)
class BackendSpec:
    """What a backend is made of.

    Attributes:
        settings: How the model is run.
        path: The ONNX file.
        recipe: Its recipe.
        size: Width and height of the network's input, pixels.
        cameras: All cameras that will send frames.
        timer: Told how long the stages took.
        standby: Makes the backend that counts while this one is still being built; None
            where the start shall wait instead.
        starting: Told, in seconds, how much longer the start may take.
        detections: Whether results must carry the detections. Without it a backend whose
            device tracks leaves them there; the CPU backend always gives them.
    """

    settings: ModelSettings
    path: Path
    recipe: Recipe
    size: Tuple[int, int]
    cameras: Sequence[CameraSpec]
    timer: StageTimer
    standby: Optional[Callable[[], "Backend"]] = None
    starting: Callable[[float], object] = lambda _seconds: None
    detections: bool = False


class Detector(Protocol):
    """Network and NMS: pictures in, detections out. Safe to call from several threads."""

    def detect(self, images: Sequence[UInt8Array]) -> List[Detections]:
        """Detect in each picture ((H, W, 3) uint8 BGR, sizes may differ).

        Raises:
            EngineError: The network could not be run.
        """
        ...


class TileDetector(Detector, Protocol):
    """A detector that also sees a frame tile by tile, each on any thread."""

    def look(self, image: UInt8Array, tile: Tile) -> Candidates:
        """Candidates, before NMS and in pixels of the frame, of one tile of it.

        Args:
            image: The frame, (H, W, 3) uint8 BGR.
            tile: Which part of it.

        Raises:
            EngineError: The network could not be run.
        """
        ...

    def merge(self, width: int, height: int, parts: Sequence[Candidates]) -> Detections:
        """Detections of a frame, whose size is given, from the candidates of all its tiles."""
        ...


class Backend(Protocol):
    """Frames in, tracks out, several batches in flight.

    ``submit`` and ``collect`` are called from two threads. Batches come back in the
    order of submission, so the tracker of each camera sees its frames in order.

    Attributes:
        name: For ``build_info`` and the status line, e.g. ``onnxruntime-cpu``.
        precision: ``fp32``, ``fp16`` or ``int8``.
        depth: Batches that may be in flight before ``submit`` waits.
        max_batch: Frames that one batch may hold, each of another camera.
    """

    name: str
    precision: str
    depth: int
    max_batch: int

    def submit(self, batch: Sequence[Frame]) -> None:
        """Start work on a batch (at most one frame a camera); waits while ``depth`` are in flight.

        Raises:
            DeviceLostError: The device is gone: the backend must be closed and made anew.
            EngineError: The device failed.
        """
        ...

    def collect(self, timeout: float) -> Optional[List[Tracked]]:
        """The oldest batch's results, or None when none was ready within ``timeout`` seconds.

        Raises:
            DeviceLostError: As above.
            EngineError: The batch failed; it is gone, later ones may succeed.
        """
        ...

    def reset(self, camera: str) -> None:
        """Forget the tracks of one camera (it was away, or its settings changed)."""
        ...

    def close(self) -> None:
        """Stop workers and free the device. May be called twice."""
        ...
