#!/usr/bin/env python3
"""The CUDA pipeline on a GPU: overlap, latency, many cameras, memory, video decoding.

    gpu_pipeline.py --out DIR [--precision fp16 fp32] [--clip vtest.avi] [--h264 clip.mp4]
                    [--only layouts overlap cameras host memory nvdec] [--quick]

Needs a GPU and onnxruntime-gpu; for ``nvdec`` also PyNvVideoCodec and an H.264 clip of some
thousand frames, so that its decoder is seldom opened anew (a raw stream may be joined to
itself with ``cat``). The second precision is measured for layouts and overlap only. Writes
gpu_pipeline.json, Chrome traces and pictures of them into DIR, and prints a table.
"""

import argparse
import contextlib
import json
import platform
import queue
import statistics
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence

import cv2
import numpy as np
import psutil

try:
    import pynvml
except ImportError:  # then nobody says how busy the video engines are
    pynvml = None

from edgecount.capture import nvdec
from edgecount.capture._clock import Clock
from edgecount.config import ModelSettings
from edgecount.errors import EdgecountError
from edgecount.infer.cuda import _bindings
from edgecount.infer.cuda import backend as backends
from edgecount.infer.cuda.backend import CudaBackend, CudaOptions
from edgecount.infer.cuda.driver import Device
from edgecount.infer.cuda.ort_network import OrtCudaNetwork
from edgecount.infer.cuda.pictures import Picture
from edgecount.toolchain import bench_cuda, timeline
from edgecount.toolchain.bench_cuda import cameras_spec

FULL_HD = (1920, 1080)
NV12_BYTES = FULL_HD[0] * FULL_HD[1] * 3 // 2
LAYOUT: Dict[str, bool] = {"fp16": True}
PARTS = ("layouts", "overlap", "cameras", "host", "memory", "nvdec")


def open_backend(
    cameras: int, precision: str, *, batch: int = 8, nhwc: Optional[bool] = None, **options: Any
) -> CudaBackend:
    """A backend that runs batches of one size only."""
    open_device = options.pop("open_device", Device.open)
    batch = min(batch, cameras)
    channels_last = LAYOUT.get(precision, False) if nhwc is None else nhwc
    spec = cameras_spec(cameras, ModelSettings(name="head-n", precision=precision))

    def network(_device: Device, stream: Any, memory_bytes: int) -> OrtCudaNetwork:
        return OrtCudaNetwork(
            spec.path,
            stream=stream,
            size=spec.size,
            precision=precision,
            memory_bytes=memory_bytes,
            channels_last=channels_last,
            first_batch=batch,
        )

    chosen = CudaOptions(max_batch=batch, sizes=(batch,), **options)
    return backends.CudaBackend(spec, network, chosen, open_device=open_device)


def layouts(precision: str) -> Dict[str, Any]:
    """Milliseconds of the network by its inner layout; the faster one is used from then on."""
    found: Dict[str, Any] = {}
    for name, nhwc in (("nchw", False), ("nhwc", True)):
        for batch in (1, 8):
            began = time.perf_counter()
            try:
                backend = open_backend(batch, precision, nhwc=nhwc)
            except EdgecountError as error:
                found[f"{name} failed"] = str(error)
                break
            backend.pipeline.time_network(batch, 50)
            found[f"{name}, batch {batch}, ms"] = (
                1e3 * backend.pipeline.time_network(batch, 200) / 200
            )
            found[f"{name}, batch {batch}, start s"] = time.perf_counter() - began
            found[f"{name}, batch {batch}, graphs"] = sorted(backend.pipeline.graphs)
            backend.close()
    slow = float("inf")
    LAYOUT[precision] = found.get("nhwc, batch 8, ms", slow) < found.get("nchw, batch 8, ms", slow)
    found["nhwc is used"] = LAYOUT[precision]
    return found


def nv12_images(clip: str, count: int) -> List[Any]:
    """Frames of the clip, enlarged to full HD."""
    capture = cv2.VideoCapture(clip)
    images = []
    while len(images) < count:
        ok, frame = capture.read()
        if not ok:
            raise SystemExit(f"{clip} cannot be read")
        planes = cv2.cvtColor(cv2.resize(frame, FULL_HD), cv2.COLOR_BGR2YUV_I420)
        width, height = FULL_HD
        nv12 = np.empty((height * 3 // 2, width), np.uint8)
        nv12[:height] = planes[:height]
        u_v = planes[height:].reshape(2, -1)
        nv12[height:] = np.stack([u_v[0], u_v[1]], axis=-1).reshape(height // 2, width)
        images.append(nv12)
    return images


def bandwidths(device: Device) -> Dict[str, float]:
    """GB/s of copies: a full HD NV12 picture in, as much out, and within the device."""
    stream = device.stream()
    start, end = device.event(timing=True), device.event(timing=True)
    large = 256 << 20
    host = device.pinned(NV12_BYTES)
    memory, other = (device.allocate(large).pointer for _ in range(2))
    size = NV12_BYTES
    copies = {
        "host_to_device": (lambda: stream.upload(memory, host.pointer, size), size),
        "device_to_host": (lambda: stream.download(host.pointer, memory, size), size),
        "device_read_and_write": (lambda: stream.copy(other, memory, large), 2 * large),
    }
    found = {}
    for name, (copy, moved) in copies.items():
        times = []
        for _ in range(30):
            stream.record(start)
            for _ in range(10):
                copy()
            stream.record(end)
            end.synchronize()
            times.append(end.since(start) / 10)
        found[name] = moved / statistics.median(times[5:]) / 1e9
    return found


def overlap(args: argparse.Namespace, precision: str, images: List[Any]) -> Dict[str, Any]:
    """Batches of 1 and 8 from pinned NV12, against the network alone."""
    found: Dict[str, Any] = {}
    for batch in (1, 8):
        backend = open_backend(batch, precision)
        templates = bench_cuda.pinned_pictures(backend.device, images, "nv12")
        feed = bench_cuda.feed(templates, batch, batch)
        seconds, turns = (0.5, 3) if args.quick else (1.0, 5)
        result, batches = bench_cuda.bench(backend, feed, batch, seconds=seconds, turns=turns)
        name = f"batch{batch}-{precision}"
        title = f"head-n 416 {precision}, batch {batch}, {backend.device.properties.name}"
        timeline.save(batches[-64:], args.out, name, title, shown=7)
        spinning = open_backend(batch, precision, spin=True)
        templates = bench_cuda.pinned_pictures(spinning.device, images, "nv12")
        stream = bench_cuda.feed(templates, batch, batch)()
        bench_cuda.latencies(spinning, stream, 50)
        took, network = bench_cuda.latencies(spinning, stream, 500)
        spun = 1e3 * (np.asarray(took) - statistics.median(network))
        spinning.close()
        found[f"batch {batch}"] = {
            "added_ms_spinning": [float(np.percentile(spun, p)) for p in (50, 99)],
            **result.as_dict(),
            "graphs": sorted(backend.pipeline.graphs),
            "memory_bytes": backend.memory(),
        }
        backend.close()
    return found


def many_cameras(args: argparse.Namespace, precision: str, images: List[Any]) -> Dict[str, Any]:
    """8 and 64 cameras of pinned NV12 full HD, as fast as they go."""
    found: Dict[str, Any] = {}
    for cameras in (8, 64):
        for batch in (8, 16, 32):
            if batch > cameras:
                continue
            backend = open_backend(cameras, precision, batch=batch)
            templates = bench_cuda.pinned_pictures(backend.device, images, "nv12")
            stream = bench_cuda.feed(templates, cameras, batch)()
            bench_cuda.run(backend, stream, 30)
            count = (100 if args.quick else 1000) * 8 // batch
            turns = [bench_cuda.run(backend, stream, count) for _ in range(3)]
            traced = bench_cuda.run(backend, stream, 64, traced=True).batches
            network = batch * 100 / backend.pipeline.time_network(batch, 100)
            fps = statistics.median(t.fps for t in turns)
            found[f"{cameras} cameras, batch {batch}"] = {
                "fps": fps,
                "streams_at_25_fps": int(fps // 25),
                "network_fps": network,
                "host_us": statistics.median(t.host_us for t in turns),
                "stages_ms": timeline.stage_times(traced),
                "busy": timeline.busy(traced),
            }
            backend.close()
    return found


class TimedCalls:
    """The driver's functions, each with how often it ran and what it took."""

    def __init__(self, calls: Any) -> None:
        self._calls = calls
        self.spent: Dict[str, List[float]] = {}

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._calls, name)
        if not name.startswith("cu"):
            return found
        spent = self.spent.setdefault(name, [0, 0.0, 0.0])

        def timed(*values: Any) -> Any:
            wall, cpu = time.perf_counter(), time.thread_time()
            returned = found(*values)
            spent[0] += 1
            spent[1] += time.perf_counter() - wall
            spent[2] += time.thread_time() - cpu
            return returned

        setattr(self, name, timed)
        return timed


def host(args: argparse.Namespace, precision: str, images: List[Any]) -> Dict[str, Any]:
    """Driver calls of a batch: how many, and microseconds by the clock and of the processor."""
    found: Dict[str, Any] = {}
    for batch in (1, 8):
        calls = TimedCalls(_bindings.load())
        backend = open_backend(
            batch, precision, batch=batch, open_device=lambda n, c=calls: Device.open(n, c)
        )
        templates = bench_cuda.pinned_pictures(backend.device, images, "nv12")
        stream = bench_cuda.feed(templates, batch, batch)()
        bench_cuda.run(backend, stream, 50)
        count = 100 if args.quick else 1000
        for spent in calls.spent.values():
            spent[:] = [0, 0.0, 0.0]
        turn = bench_cuda.run(backend, stream, count)
        found[f"batch {batch}"] = {
            "host_us": turn.host_us,
            "calls": {
                name: [round(n / count, 2), *(round(1e6 * s / count, 1) for s in seconds)]
                for name, (n, *seconds) in calls.spent.items()
                if n
            },
        }
        backend.close()
    return found


def memory(args: argparse.Namespace, precision: str, images: List[Any]) -> Dict[str, Any]:
    """Device and host memory before and after many frames."""
    frames = 5_000 if args.quick else 100_000
    backend = open_backend(8, precision)
    templates = bench_cuda.pinned_pictures(backend.device, images, "nv12")
    stream = bench_cuda.feed(templates, 8, 8)()
    turn = 1000  # also the first, unmeasured one: a turn's results are held to its end
    bench_cuda.run(backend, stream, turn)
    free, rss = backend.device.free_bytes(), psutil.Process().memory_info().rss
    left = frames // 8
    while left > 0:
        bench_cuda.run(backend, stream, min(left, turn))
        left -= turn
    found = {
        "frames": frames,
        "device_bytes_grown": free - backend.device.free_bytes(),
        "host_rss_bytes_grown": psutil.Process().memory_info().rss - rss,
        "budget": backend.memory(),
        "limit": backend._budget.limit,
    }
    backend.close()
    return found


def decoded(path: str, counts: List[int], number: int, until: float) -> None:
    source = nvdec.create("c", path, nvdec.Options(loop=True), clock=Clock())
    source.open()
    while time.perf_counter() < until:
        source.read()
        counts[number] += 1
    source.close()


class Usage:
    """What the video engines and this process do meanwhile: ``with Usage() as usage: …``."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._busy: List[int] = []
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._process = psutil.Process()

    def __enter__(self) -> "Usage":
        self._cpu = self._cpu_s()
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join()
        self.cpu_s = self._cpu_s() - self._cpu

    @property
    def video_engines(self) -> Optional[float]:
        """Their utilisation by NVML, 0..1; None where it does not tell."""
        return statistics.median(self._busy) / 100 if self._busy else None

    def _cpu_s(self) -> float:
        times = self._process.cpu_times()
        return times.user + times.system

    def _sample(self) -> None:
        if pynvml is None:
            return
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlInit()
            device = pynvml.nvmlDeviceGetHandleByIndex(0)
            while not self._stop.wait(0.2):
                self._busy.append(pynvml.nvmlDeviceGetDecoderUtilization(device)[0])


def nvdec_rates(args: argparse.Namespace) -> Dict[str, Any]:
    """Frames per second of decoding alone, by the number of streams."""
    found: Dict[str, Any] = {}
    seconds = 2.0 if args.quick else 3.0
    for streams in (1, 4, 8, 16, 32, 64):
        counts = [0] * streams
        began = time.perf_counter()
        threads = [
            threading.Thread(target=decoded, args=(args.h264, counts, n, began + seconds))
            for n in range(streams)
        ]
        with Usage() as usage:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        fps = sum(counts) / (time.perf_counter() - began)
        found[f"{streams} streams"] = {
            "fps": fps,
            "video_engines": usage.video_engines,
            "host_us": 1e6 * usage.cpu_s / max(1, sum(counts)),
        }
    return found


class Decoders:
    """Streams that are decoded ahead by two pictures, each in a thread of its own."""

    def __init__(self, path: str, count: int) -> None:
        self._stop = threading.Event()
        self._free = [threading.Semaphore(2) for _ in range(count)]
        self._queues: List[Any] = [queue.SimpleQueue() for _ in range(count)]
        self._threads = [
            threading.Thread(target=self._read, args=(path, n), daemon=True) for n in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def batch(self) -> List[Any]:
        """A frame of each."""
        frames = []
        for frame, free in zip(self._queues, self._free):
            frames.append(frame.get(timeout=10.0))
            free.release()
        return frames

    def close(self) -> None:
        self._stop.set()
        for free, thread in zip(self._free, self._threads):
            free.release()
            thread.join(2.0)

    def _read(self, path: str, number: int) -> None:
        options = nvdec.Options(loop=True)
        source = nvdec.create(f"camera{number}", path, options, clock=Clock())
        source.open()
        while not self._stop.is_set():
            self._free[number].acquire()
            self._queues[number].put(source.read())
        source.close()


def nvdec_pipeline(args: argparse.Namespace, precision: str) -> Dict[str, Any]:
    """Frames per second of many streams through decoders and pipeline."""
    found: Dict[str, Any] = {}
    for cameras in (8, 32):
        backend = open_backend(cameras, precision)
        decoders = Decoders(args.h264, cameras)
        try:
            stream = decoded_batches(backend, decoders, 8)
            rate = bench_cuda.run(backend, stream, 50).fps
            with Usage() as usage:
                turn = bench_cuda.run(backend, stream, max(50, int(rate * 3.0 / 8)))
            found[f"{cameras} cameras"] = {
                "fps": turn.fps,
                "streams_at_25_fps": int(turn.fps // 25),
                "video_engines": usage.video_engines,
                "host_us": 1e6 * usage.cpu_s / turn.pictures,
                "pipeline_host_us": turn.host_us,
            }
        finally:
            decoders.close()
            backend.close()
    return found


def decoded_batches(
    backend: CudaBackend, decoders: Decoders, batch: int
) -> Iterator[Sequence[Picture]]:
    while True:
        frames = decoders.batch()
        for first in range(0, len(frames), batch):
            yield [backend.picture(frame) for frame in frames[first : first + batch]]


def report(found: Dict[str, Any]) -> None:
    print(json.dumps(found["where"]))
    print("GB/s:", {k: round(v, 1) for k, v in found["bandwidth"].items()})
    limit = 1e9 * found["bandwidth"]["host_to_device"] / NV12_BYTES
    print(f"the bus carries {limit:,.0f} full HD NV12 pictures a second")
    for precision, parts in found["precisions"].items():
        for name, r in parts.get("overlap", {}).items():
            print(
                f"{precision} {name}: {r['fps']:,.0f} fps, network {r['network_fps']:,.0f}, "
                f"overlap {r['overlap']:.3f}; added {r['added_p50_ms']:.3f} / "
                f"{r['added_p99_ms']:.3f} ms (network {r['network_ms']:.3f}); "
                f"host {r['host_us']:.1f} us; graphs {r['graphs']}"
            )
            print("    spinning: added", r["added_ms_spinning"])
            print("   ", {k: round(v, 4) for k, v in r["stages_ms"].items()}, r["busy"])
        for name, r in parts.get("cameras", {}).items():
            print(
                f"{precision} {name}: {r['fps']:,.0f} fps = {r['streams_at_25_fps']} streams; "
                f"network alone {r['network_fps']:,.0f}; host {r['host_us']:.1f} us; "
                f"{ {k: round(v, 3) for k, v in r['stages_ms'].items()} }"
            )
        for name in ("layouts", "host", "memory", "nvdec", "nvdec_pipeline"):
            if name in parts:
                print(precision, name, json.dumps(parts[name]))


def attempt(parts: Dict[str, Any], name: str, measure: Callable[[], Any]) -> None:
    """Measure; a failure is noted and the rest goes on."""
    try:
        parts[name] = measure()
    except EdgecountError as error:
        parts[f"{name} failed"] = str(error)
        print(f"{name} failed: {error}")


def save(args: argparse.Namespace, found: Dict[str, Any]) -> None:
    (args.out / "gpu_pipeline.json").write_text(json.dumps(found, indent=2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--precision", nargs="+", default=["fp16", "fp32"])
    parser.add_argument("--only", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--clip", default="samples/vtest.avi")
    parser.add_argument("--h264")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    images = nv12_images(args.clip, 32)
    device = Device.open()
    found: Dict[str, Any] = {
        "where": {
            "gpu": device.properties.name,
            "driver": ".".join(map(str, device.properties.driver)),
            "python": platform.python_version(),
            "date": time.strftime("%Y-%m-%d"),
        },
        "bandwidth": bandwidths(device),
        "precisions": {},
    }
    device.close()
    for precision in args.precision:
        parts: Dict[str, Any] = {}
        found["precisions"][precision] = parts
        for name, measure in (
            ("layouts", layouts),
            ("overlap", lambda p: overlap(args, p, images)),
            ("cameras", lambda p: many_cameras(args, p, images)),
            ("host", lambda p: host(args, p, images)),
            ("memory", lambda p: memory(args, p, images)),
        ):
            if name not in args.only:
                continue
            if precision != args.precision[0] and name not in ("layouts", "overlap"):
                continue
            attempt(parts, name, lambda m=measure, p=precision: m(p))
            save(args, found)
    if "nvdec" in args.only and args.h264:
        # Last: what a decoder breaks in the context must not cost the other numbers.
        precision, parts = next(iter(found["precisions"].items()))
        attempt(parts, "nvdec", lambda: nvdec_rates(args))
        attempt(parts, "nvdec_pipeline", lambda: nvdec_pipeline(args, precision))
        save(args, found)
    report(found)


if __name__ == "__main__":
    main()
