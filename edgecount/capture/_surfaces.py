"""Decoded pictures in device memory of our own, through ctypes: capture knows no backend.

A video decoder's pictures are its own. PyNvVideoCodec 2.2 hands out one surface again and
again, whether a picture in it is held or not (of twelve held ones, ten had become others on an
H100), and frees it with the decoder, as whenever a stream is opened anew: an illegal memory
access for who still reads. So each picture is copied, within the device, to a place that is its
holder's; for full HD that takes microseconds.
"""

import contextlib
import ctypes
from collections import deque
from typing import Any, ContextManager, Deque, Iterator, List, NamedTuple, Tuple

import cv2
import numpy as np

from edgecount.errors import SourceError
from edgecount.records import Surface, UInt8Array

_DRIVER = "libcuda.so.1"


class Planes(NamedTuple):
    """An NV12 picture in device memory.

    Attributes:
        luma: Address of (height, pitch) bytes.
        chroma: Address of (height / 2, pitch) bytes, U and V interleaved.
        pitch: Bytes from one row to the next, of both.
        height: Rows of luma, pixels.
    """

    luma: int
    chroma: int
    pitch: int
    height: int

    @property
    def rows(self) -> int:
        """Rows of both planes."""
        return self.height + self.height // 2

    def parts(self) -> List[Tuple[int, int, int]]:
        """What to copy: where to, from the start on; where from; how many rows."""
        behind = self.pitch * self.height
        if self.chroma == self.luma + behind:
            return [(0, self.luma, self.rows)]
        return [(0, self.luma, self.height), (behind, self.chroma, self.height // 2)]


class SurfacePool:
    """Copies of a decoder's pictures.

    Memory is taken as pictures are held at the same time, and used again when they are let go
    of; no memory is taken per frame. It lies outside the backend's budget.

    Attributes:
        context: Handle of the device's primary context, the backend's: memory of another
            one is out of its kernels' reach.
        stream: Handle of the stream that copies are made on. A decoder that works on it, too,
            is never overtaken.
    """

    def __init__(self, device: int) -> None:
        """Raises SourceError where there is no such device."""
        self._device = device
        self._free: Deque[Tuple[int, int]] = deque()  # address and size
        self._closed = False
        self._broken = False
        # Without the interpreter's lock: the driver has locks of its own, and decoders hold them.
        self._driver = ctypes.CDLL(_DRIVER)
        self.context = _primary_context(self._driver, device)
        stream = ctypes.c_void_p()
        with self._entered():
            # One that waits for the default stream and is waited for by it.
            self._check(self._driver.cuStreamCreate(ctypes.byref(stream), 0))
        self.stream = stream.value or 0

    def copy(self, planes: Planes) -> Surface:
        """A picture's copy, complete, and its holder's for as long as the surface is alive.

        Raises:
            SourceError: There is no memory left, or the device is lost.
        """
        size = planes.pitch * planes.rows
        with self._entered():
            address = self._take(size)
            surface = Surface(
                self._device,
                address,
                address + planes.pitch * planes.height,
                planes.pitch,
                _Lease(self, address, size),
            )
            for offset, source, rows in planes.parts():
                self._check(
                    self._driver.cuMemcpyDtoDAsync_v2(
                        ctypes.c_uint64(address + offset),
                        ctypes.c_uint64(source),
                        ctypes.c_size_t(rows * planes.pitch),
                        ctypes.c_void_p(self.stream),
                    )
                )
            self._check(self._driver.cuStreamSynchronize(ctypes.c_void_p(self.stream)))
        return surface

    def give_back(self, address: int, size: int) -> None:
        """Memory is free again; called from any thread, without a lock: also by the collector."""
        self._free.append((address, size))
        if self._closed:
            self._drain()

    def close(self) -> None:
        """Free what is not held; the rest follows when it is let go of."""
        if self._closed:
            return
        self._closed = True
        self._drain()
        if not self._broken:
            with contextlib.suppress(SourceError), self._entered():
                self._driver.cuStreamDestroy_v2(ctypes.c_void_p(self.stream))

    def _take(self, size: int) -> int:
        while self._free:
            address, found = self._free.pop()
            if found == size:
                return address
            self._release(address)  # the pictures have another size now
        made = ctypes.c_uint64()
        self._check(self._driver.cuMemAlloc_v2(ctypes.byref(made), ctypes.c_size_t(size)))
        return made.value

    def _drain(self) -> None:
        if self._broken:
            # What belonged to a lost context has gone with it; its address may be another's now.
            self._free.clear()
            return
        with contextlib.suppress(IndexError, SourceError), self._entered():
            while True:
                self._release(self._free.pop()[0])

    def _release(self, address: int) -> None:
        self._driver.cuMemFree_v2(ctypes.c_uint64(address))

    def _check(self, result: int) -> None:
        self._broken = self._broken or bool(result)
        _check(result)

    def _entered(self) -> ContextManager[None]:
        return _entered(self._driver, self.context)


class _Lease:
    """Gives memory back when nobody holds it any more."""

    def __init__(self, pool: SurfacePool, address: int, size: int) -> None:
        self._pool, self._address, self._size = pool, address, size

    def __del__(self) -> None:
        self._pool.give_back(self._address, self._size)


def download(surface: Surface, width: int, height: int) -> UInt8Array:
    """The picture as (height, width, 3) uint8 BGR in host memory.

    Raises:
        SourceError: The device does not give it.
    """
    planes: UInt8Array = np.empty((height + height // 2, surface.pitch), np.uint8)
    driver = ctypes.CDLL(_DRIVER)
    with _entered(driver, _primary_context(driver, surface.device)):
        for target, source in ((planes[:height], surface.luma), (planes[height:], surface.chroma)):
            _check(
                driver.cuMemcpyDtoH_v2(
                    ctypes.c_void_p(target.ctypes.data),
                    ctypes.c_uint64(source),
                    ctypes.c_size_t(target.nbytes),
                )
            )
    picture = np.ascontiguousarray(planes[:, :width])
    return cv2.cvtColor(picture, cv2.COLOR_YUV2BGR_NV12)  # type: ignore[return-value]


@contextlib.contextmanager
def _entered(driver: Any, context: int) -> Iterator[None]:
    left = ctypes.c_void_p()
    _check(driver.cuCtxPushCurrent_v2(ctypes.c_void_p(context)))
    try:
        yield
    finally:
        driver.cuCtxPopCurrent_v2(ctypes.byref(left))


def _primary_context(driver: Any, device: int) -> int:
    """Handle of the device's primary context; kept for as long as the process lives.

    Raises:
        SourceError: There is no such device.
    """
    context = ctypes.c_void_p()
    _check(driver.cuInit(0))
    _check(driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device))
    return context.value or 0


def _check(result: int) -> None:
    if result:
        raise SourceError(f"the GPU cannot be used to decode: CUDA error {result}")
