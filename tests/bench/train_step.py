"""Where the time of a training step goes: batch, network, loss, optimiser; kernels by time.

    python tests/bench/train_step.py --data DATA --init yolox_nano_416_coco.onnx --out OUT
    python tests/bench/train_step.py --device cpu --sizes 64 --batch 2 --replays 1 --out OUT

On a GPU each part is captured as a CUDA graph and replayed; on a CPU it simply runs. Results are
written after each part, so that a run cut off keeps what it has. ``torch.compile`` comes last,
each part under its own time limit.
"""

import argparse
import contextlib
import json
import signal
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any, Callable, Dict, Iterator, List, Optional

import cv2
import numpy as np
import torch

from edgecount.toolchain.train import colour, geometry
from edgecount.toolchain.train.augment import make_batch
from edgecount.toolchain.train.dataset import load_pictures
from edgecount.toolchain.train.loss import detection_loss
from edgecount.toolchain.train.model import cells
from edgecount.toolchain.train.recipe import load_recipe
from edgecount.toolchain.train.session import prepare
from edgecount.toolchain.train.trainer import Trainer
from edgecount.toolchain.yolo_files import find_pairs


class Results:
    """Milliseconds by name, kept in a file."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.rows = folder, {}  # type: Path, Dict[str, Any]
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, name: str, value: Any) -> None:
        self.rows[name] = value
        print(f"{name:<44} {value}", flush=True)
        (self.folder / "train_step.json").write_text(json.dumps(self.rows, indent=1) + "\n")


class TooLongError(Exception):
    """A part took longer than it may."""


@contextlib.contextmanager
def at_most(seconds: int) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TooLongError(f"stopped after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def draw_pictures(folder: Path, count: int, side: int) -> Path:
    rng = np.random.default_rng(1)
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    for i in range(count):
        noise = rng.integers(0, 255, (side // 16, side // 16, 3)).astype(np.uint8)
        cv2.imwrite(str(folder / "images" / f"{i}.png"), cv2.resize(noise, (side, side)))
        middles = rng.uniform(0.2, 0.8, (4, 2))
        lines = [f"0 {x:.4f} {y:.4f} 0.08 0.1" for x, y in middles]
        (folder / "labels" / f"{i}.txt").write_text("\n".join(lines) + "\n")
    return folder


def milliseconds(work: Callable[[], Any], replays: int, cuda: bool) -> float:
    """Of one call: captured as a CUDA graph and replayed, or run as it is."""
    if not cuda:
        work()
        started = perf_counter()
        for _ in range(replays):
            work()
        return 1e3 * (perf_counter() - started) / replays
    graph = capture(work)
    return replayed(graph, replays)


def capture(work: Callable[[], Any]) -> Any:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph


def replayed(graph: Any, replays: int) -> float:
    graph.replay()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(replays):
        graph.replay()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end)) / replays


class Parts:
    """The parts of one trainer's step at one size, each runnable alone on fixed inputs."""

    def __init__(self, trainer: Trainer, size: int) -> None:
        self.trainer, self.size = trainer, size
        self.recipe, self.batch = trainer.recipe, trainer._batch(size)
        self.cuda = trainer.device.type == "cuda"
        self.most = self.recipe.schedule.max_boxes
        drawn = self.make()
        self.images, self.boxes, self.classes = drawn.images, drawn.boxes, drawn.classes
        if self.cuda:
            self.images = self.images.contiguous(memory_format=torch.channels_last)
        self.cells = cells(size, size, trainer.device)
        trainer.model.train()
        with torch.no_grad():
            self.output = self.forward(trainer.model, self.images).float()
        self.output.requires_grad_()

    def make(self) -> Any:
        trainer = self.trainer
        return make_batch(
            trainer.data,
            self.recipe.augment,
            self.batch,
            self.size,
            self.most,
            trainer._calm,
        )

    def forward(self, model: Any, images: torch.Tensor) -> torch.Tensor:
        half = self.cuda and self.recipe.schedule.half
        if not half:
            images = images.float()
        with torch.autocast(images.device.type, torch.bfloat16, half, cache_enabled=False):
            return model(images)  # type: ignore[no-any-return]

    def network(self, model: Any, images: torch.Tensor) -> None:
        model.zero_grad(set_to_none=True)
        self.forward(model, images).float().square().mean().backward()

    def teacher(self) -> None:
        with torch.no_grad():
            self.forward(self.trainer.teacher.teacher.features, self.images[: self.batch // 2])

    def master(self) -> None:
        with torch.no_grad():
            self.forward(self.trainer.master.network, self.images)

    def loss(self) -> None:
        self.output.grad = None
        weight = self.recipe.schedule.box_weight
        loss = detection_loss(self.output, self.boxes, self.classes, *self.cells, weight)[0]
        loss.backward()

    def optimise(self) -> None:
        trainer = self.trainer
        torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), 10.0, foreach=True)
        trainer._optimizer.step()
        trainer._average()

    def give_gradients(self) -> None:
        for group in self.trainer._optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.full_like(parameter, 1e-6)


def measure(parts: Parts, results: Results, replays: int) -> None:
    trainer, size = parts.trainer, parts.size

    def add(name: str, work: Callable[[], Any]) -> float:
        ms = milliseconds(work, replays, parts.cuda)
        results.add(f"{size} {name}, ms", round(ms, 3))
        return ms

    add("make_batch", parts.make)
    for name, work in pieces_of_a_batch(parts).items():
        add(f"  {name}", work)
    network = lambda: parts.network(trainer.model, parts.images)  # noqa: E731
    add("network forward", lambda: no_gradient(lambda: parts.forward(trainer.model, parts.images)))
    add("network forward + backward", network)
    if parts.cuda:
        torch.backends.cudnn.benchmark = True
        add("network, cudnn.benchmark", network)
        plain = trainer.model.to(memory_format=torch.contiguous_format)
        images = parts.images.contiguous(memory_format=torch.contiguous_format)
        add("network, NCHW, cudnn.benchmark", lambda: parts.network(plain, images))
        torch.backends.cudnn.benchmark = False
        trainer.model.to(memory_format=torch.channels_last)
    if trainer.master is not None:
        add("master forward", parts.master)
    if trainer.teacher is not None:
        add("teacher forward, half the batch", parts.teacher)
    add("loss forward + backward", parts.loss)
    parts.give_gradients()
    add("clip, optimiser, averaging", parts.optimise)
    for group in trainer._optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = None
    whole = add("whole step", lambda: trainer._learn(trainer._draw(size), size))
    results.add(f"{size} pictures per step", parts.batch)
    results.add(f"{size} pictures/s", round(1e3 * parts.batch / whole))


def no_gradient(work: Callable[[], Any]) -> None:
    with torch.no_grad():
        work()


def pieces_of_a_batch(parts: Parts) -> Dict[str, Callable[[], Any]]:
    """What ``make_batch`` consists of, on fixed draws."""
    trainer, spec = parts.trainer, parts.recipe.augment
    data, calm = trainer.data, trainer._calm
    batch, size = parts.batch, parts.size
    plain = torch.rand(batch, device=trainer.device) < spec.plain
    tiles = geometry.draw_tiles(data, spec, batch, size, calm)
    patches = geometry.draw_patches(data, spec, plain, size, calm)
    power = torch.full(patches.heads.shape, 2.0, device=trainer.device)
    outlines = (power, power * 0, power)
    slot = geometry.which_slot(tiles, patches.slots, *outlines, size)
    slots, rects = geometry.join(tiles, patches.slots), patches.slots.rect
    images, painted = parts.images.contiguous(), patches.heads < 0
    return {
        "draw tiles": lambda: geometry.draw_tiles(data, spec, batch, size, calm),
        "draw patches": lambda: geometry.draw_patches(data, spec, plain, size, calm),
        "which slot": lambda: geometry.which_slot(tiles, patches.slots, *outlines, size),
        "render": lambda: geometry.render(data, slots, slot),
        "paint ground": lambda: colour.paint_ground(images, slot, plain),
        "paint patches": lambda: colour.paint_patches(images, slot, rects, painted),
        "change colour": lambda: colour.change_colour(images, spec.colour, calm),
        "degrade": lambda: colour.degrade(images, spec.degrade, calm),
        "gather boxes": lambda: geometry.gather_boxes(
            data, tiles, patches, plain, size, parts.most
        ),
    }


def profile_kernels(trainer: Trainer, size: int, rows: int, folder: Path) -> None:
    """A table of the kernels of three eager steps, by their own time."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    cuda = trainer.device.type == "cuda"
    if cuda:
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    trainer._learn(trainer._draw(size), size)
    with torch.profiler.profile(activities=activities) as profile:
        for _ in range(3):
            trainer._learn(trainer._draw(size), size)
        if cuda:
            torch.cuda.synchronize()
    by = "self_cuda_time_total" if cuda else "self_cpu_time_total"
    averages = profile.key_averages()
    table = averages.table(sort_by=by, row_limit=rows, max_name_column_width=90)
    (folder / f"kernels_{size}.txt").write_text(table + "\n")
    print(kernel_lines(averages, rows) if cuda else table, flush=True)


def kernel_lines(averages: Any, rows: int) -> str:
    """The GPU's kernels alone, shorter than the profiler's own table: ms of a step, calls, name."""
    kernels = [e for e in averages if str(e.device_type).endswith("CUDA")]
    kernels.sort(key=lambda e: -e.self_device_time_total)
    lines = [f"{sum(e.self_device_time_total for e in kernels) / 3e3:8.3f} ms in all"]
    lines += [
        f"{e.self_device_time_total / 3e3:8.3f} {e.count / 3:6.0f}  {e.key[:110]}"
        for e in kernels[:rows]
    ]
    return "\n".join(lines)


def compile_parts(parts: Parts, names: List[str], seconds: int, results: Results, n: int) -> None:
    """Time torch.compile on the batch, the network or the loss alone; what fails is noted."""
    size = parts.size
    compiled: Dict[str, Callable[[], Callable[[], Any]]] = {
        "batch": lambda: _with(parts, "make_batch"),
        "network": lambda: _compiled_network(parts),
        "loss": lambda: _with(parts, "detection_loss"),
    }
    for name in names:
        started = perf_counter()
        try:
            with at_most(seconds):
                work = compiled[name]()
                work()
                results.add(f"{size} compiling {name}, s", round(perf_counter() - started, 1))
                ms = milliseconds(work, n, parts.cuda)
                results.add(f"{size} {name} compiled, ms", round(ms, 3))
        except Exception as error:
            spent = round(perf_counter() - started, 1)
            results.add(
                f"{size} compiling {name}",
                f"{type(error).__name__} after {spent} s: {str(error)[:300]}",
            )
        torch._dynamo.reset()


def _with(parts: Parts, name: str) -> Callable[[], Any]:
    function = torch.compile(globals()[name], dynamic=False)
    recipe, trainer = parts.recipe, parts.trainer
    if name == "make_batch":
        given = (trainer.data, recipe.augment, parts.batch, parts.size, parts.most, trainer._calm)
        return lambda: function(*given)

    def loss() -> None:
        parts.output.grad = None
        weight = recipe.schedule.box_weight
        function(parts.output, parts.boxes, parts.classes, *parts.cells, weight)[0].backward()

    return loss


def _compiled_network(parts: Parts) -> Callable[[], Any]:
    model = torch.compile(parts.trainer.model, dynamic=False)

    def work() -> None:
        parts.trainer.model.zero_grad(set_to_none=True)
        parts.forward(model, parts.images).float().square().mean().backward()

    return work


def build(args: argparse.Namespace, results: Results) -> Trainer:
    recipe = load_recipe(args.recipe)
    schedule = {"sizes": args.sizes, "batch": args.batch or recipe.schedule.batch}
    distill = recipe.init.distill if args.init else 0.0
    init = {"yolox": args.init, "distill": distill, "master": args.master}
    recipe = recipe.model_copy(
        update={
            "schedule": recipe.schedule.model_copy(update=schedule),
            "init": recipe.init.model_copy(update=init),
            "labels": recipe.labels.model_copy(update={"ignore_people": False}),
        }
    )
    torch.manual_seed(1)
    started = perf_counter()
    pairs = find_pairs(args.data, None)[: args.pictures]
    data = load_pictures(pairs, recipe.cache, len(recipe.classes), torch.device(args.device))
    results.add("pictures", len(data))
    results.add("reading them, s", round(perf_counter() - started, 2))
    return prepare(recipe, data, None, print)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="head-n")
    parser.add_argument("--data", type=Path, help="YOLO-format folder; drawn pictures without")
    parser.add_argument("--pictures", type=int, default=512)
    parser.add_argument("--init", type=Path, help="YOLOX-nano ONNX file: with the feature teacher")
    parser.add_argument("--master", type=Path, help="ONNX file of a finished detector")
    parser.add_argument("--sizes", type=int, nargs="+", default=[416, 320])
    parser.add_argument("--batch", type=int)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--replays", type=int, default=20)
    parser.add_argument("--top", type=int, default=25)
    parser.add_argument("--compile", nargs="*", default=[], choices=["batch", "network", "loss"])
    parser.add_argument("--compile-seconds", type=int, default=60)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    results = Results(args.out)
    results.add("torch", torch.__version__)
    results.add("device", _name(args.device))
    with tempfile.TemporaryDirectory() as folder:
        if args.data is None:
            args.data = draw_pictures(Path(folder) / "drawn", args.pictures, 416)
        trainer = build(args, results)
    for size in args.sizes:
        parts = Parts(trainer, size)
        measure(parts, results, args.replays)
        profile_kernels(trainer, size, args.top, args.out)
    if args.compile:
        parts = Parts(trainer, args.sizes[0])
        compile_parts(parts, args.compile, args.compile_seconds, results, args.replays)


def _name(device: str) -> Optional[str]:
    return torch.cuda.get_device_name() if device == "cuda" else device


if __name__ == "__main__":
    main()
