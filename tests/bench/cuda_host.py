#!/usr/bin/env python3
"""What the CUDA backend costs the host, without a device: a driver that does nothing.

    cuda_host.py [--batch 8] [--tracks 9] [--profile]

Runs the backend's Python as it runs on a device, from submitted pictures to tracks, on a
driver whose calls return at once. So it holds neither the real driver's time nor waits.
Prints processor time per picture, driver calls per batch, and where the time goes.
"""

import argparse
import cProfile
import ctypes
import itertools
import pstats
import statistics
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.fake_cuda import FakeCuda

from edgecount.config import ModelSettings
from edgecount.infer.cuda import tracker
from edgecount.infer.cuda.backend import CudaBackend, CudaOptions
from edgecount.infer.cuda.driver import Device, Module, Stream
from edgecount.infer.cuda.pictures import Picture
from edgecount.toolchain import bench_cuda

BATCHES, TURNS = 400, 15
PICTURE = np.zeros((1080 * 3 // 2, 1920), np.uint8)


NOTHING = {
    "cuMemcpyHtoDAsync": (0,),
    "cuEventRecord": (0,),
    "cuEventSynchronize": (0,),
    "cuStreamWaitEvent": (0,),
    "cuLaunchKernel": (0,),
    "cuGraphLaunch": (0,),
    "cuEventElapsedTime": (0, 0.5),
}


def null_cuda() -> Any:
    """Takes memory and answers; does nothing that is enqueued, and is as quick as can be."""
    fake = FakeCuda()
    functions = {name: getattr(fake, name) for name in dir(fake) if name.startswith(("cu", "CU"))}
    answers = {name: lambda *_, answer=answer: answer for name, answer in NOTHING.items()}

    def zeroed(size: int, flags: int) -> Tuple[Any, ...]:
        result, pointer = fake.cuMemHostAlloc(size, flags)
        ctypes.memset(pointer, 0, size)
        return result, pointer

    def download(target: int, _source: int, size: int, _stream: Any) -> Tuple[Any, ...]:
        ctypes.memset(target, 0, size)  # only at the start; then it is in a graph
        return (0,)

    functions.update(answers, cuMemHostAlloc=zeroed, cuMemcpyDtoHAsync=download)
    return SimpleNamespace(**functions)


class NullNetwork:
    """Has shapes."""

    name, precision, max_batch = "null", "fp16", None
    input_dtype = output_dtype = np.float32

    def __init__(self, rows: int, columns: int) -> None:
        self._rows = (rows, columns)

    def output_shape(self, batch: int) -> Tuple[int, ...]:
        return (batch, *self._rows)

    def enqueue(self, stream: Stream, *_: Any) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def open_backend(calls: Any, batch: int, tracks: int, cameras: int = 0) -> CudaBackend:
    spec = bench_cuda.cameras_spec(cameras or batch, ModelSettings(name="head-n"))
    rows = sum((spec.size[0] // s) * (spec.size[1] // s) for s in (8, 16, 32))

    def load(device: Device, name: str, _: Optional[Mapping[str, object]] = None) -> Module:
        return device.module(name.encode())

    backend = CudaBackend(
        spec,
        lambda *_: NullNetwork(rows, 4 + len(spec.recipe.classes) + 1),
        CudaOptions(max_batch=batch, sizes=(batch,)),
        open_device=lambda number: Device.open(number, calls),
        load=load,
    )
    for slot in backend.pipeline._slots:  # what the device would have written
        results: Any = slot.work
        outputs = results._results._tracked.array.view(tracker._OUTPUT)
        outputs["count"] = tracks
        outputs["id"] = np.arange(outputs["id"].shape[1])
    return backend


def turn(backend: CudaBackend, stream: Iterator[Sequence[Picture]], count: int) -> float:
    """Microseconds of processor time per picture; making the pictures is not counted."""
    jobs = list(itertools.islice(stream, count))
    began = time.thread_time()
    for job in jobs:
        backend.submit_pictures(job)
        backend.collect(1.0)
    return 1e6 * (time.thread_time() - began) / sum(map(len, jobs))


def calls_of(calls: Any, backend: CudaBackend, job: Sequence[Picture]) -> Dict[str, int]:
    """Driver calls of one batch."""
    made: List[str] = []
    before = {name: getattr(calls, name) for name in NOTHING}
    for name, call in before.items():
        setattr(calls, name, lambda *_, name=name, call=call: made.append(name) or call())
    backend.submit_pictures(job)
    backend.collect(1.0)
    for name, call in before.items():
        setattr(calls, name, call)
    return {name: made.count(name) for name in NOTHING if name in made}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tracks", type=int, default=9)
    parser.add_argument("--profile", action="store_true")
    given = parser.parse_args()
    calls = null_cuda()
    backend = open_backend(calls, given.batch, given.tracks)
    templates = bench_cuda.pinned_pictures(backend.device, [PICTURE] * 4, "nv12")
    stream = bench_cuda.feed(templates, given.batch, given.batch)()
    turn(backend, stream, BATCHES)
    times = [turn(backend, stream, BATCHES) for _ in range(TURNS)]
    made = calls_of(calls, backend, next(stream))
    print(f"{statistics.median(times):.1f} us per picture (best {min(times):.1f})")
    print(f"{sum(made.values())} driver calls per batch: {made}")
    if given.profile:
        profile = cProfile.Profile()
        profile.runcall(turn, backend, stream, BATCHES)
        pstats.Stats(profile).sort_stats("tottime").print_stats(32)
    backend.close()


if __name__ == "__main__":
    main()
