"""``edgecount bench``: how fast is it here, and where does the time go."""

import json
from pathlib import Path
from typing import Dict, Optional

import click

from edgecount.cli._options import json_option, model_option, source_option


@click.command()
@click.argument("engine", required=False)
@source_option()
@model_option()
@click.option("--fps", type=click.FloatRange(min=0.1), help="Pace the source to this rate.")
@click.option("--seconds", default=20.0, show_default=True, help="Time to measure in all.")
@click.option(
    "--turns",
    default=4,
    show_default=True,
    type=click.IntRange(1, 100),
    help="Turns of pipeline and bare inference.",
)
@click.option("--threads", type=click.IntRange(1, 256), help="Threads of the network.")
@click.option(
    "--batch", default=1, show_default=True, type=click.IntRange(1, 64), help="Of ENGINE."
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "int8"]),
    help="Which of a model's engines; the newest where not given.",
)
@click.option(
    "--runtime",
    type=click.Choice(["tensorrt", "onnxruntime"]),
    default="tensorrt",
    show_default=True,
    help="What runs ENGINE on the GPU.",
)
@click.option(
    "--backend",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="What runs the pipeline; cuda takes the clip's first frames from memory.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    help="Folder for the GPU's timelines: Chrome traces and pictures.",
)
@click.option("--graph/--no-graph", default=True, help="Run ENGINE as a CUDA graph.")
@json_option()
def command(
    engine: Optional[str],
    source: Optional[str],
    model: Optional[str],
    fps: Optional[float],
    seconds: float,
    turns: int,
    threads: Optional[int],
    batch: int,
    precision: Optional[str],
    runtime: str,
    backend: str,
    out: Optional[Path],
    graph: bool,
    as_json: bool,
) -> None:
    """Measure the whole pipeline on a clip (--source), or a network alone on the GPU (ENGINE).

    ENGINE is an engine file, or a model whose engine is built on this machine: its time on
    the device, to enqueue and to copy, its throughput and memory, and the power it takes.
    The pipeline runs in turns with the bare network. On a GPU it is measured with batches of
    one and of eight cameras: overlap of its three streams, added latency, host time.
    """
    if engine is not None:
        _print(_bench_engine(engine, batch, seconds, precision, runtime, graph), as_json)
        return
    if source is None:
        raise click.UsageError("give --source to measure the pipeline, or an ENGINE")
    if backend == "cuda":
        _print(_bench_cuda(source, model, precision, seconds, turns, out), as_json)
        return
    from edgecount.toolchain.bench import bench

    result = bench(source, model, seconds=seconds, turns=turns, fps=fps, threads=threads)
    _print(result.as_dict(), as_json)


def _bench_cuda(
    source: str,
    model: Optional[str],
    precision: Optional[str],
    seconds: float,
    turns: int,
    out: Optional[Path],
) -> Dict[str, object]:
    from edgecount.runtime.plan import default_settings
    from edgecount.toolchain.bench_cuda import bench_clip

    settings = default_settings(source, model=model).model
    settings = settings.model_copy(update={"precision": precision or "auto"})
    return bench_clip(source, settings, seconds=seconds / turns, turns=turns, out=out)


def _bench_engine(
    engine: str, batch: int, seconds: float, precision: Optional[str], runtime: str, graph: bool
) -> Dict[str, object]:
    from edgecount.infer.cuda.driver import Device
    from edgecount.observe.telemetry.sampler import Sampler, sources
    from edgecount.toolchain.bench_engine import measure
    from edgecount.toolchain.engines import engine_for, onnx_for

    find = onnx_for if runtime == "onnxruntime" else engine_for
    chosen = find(engine, precision=precision)
    telemetry = sources()
    sampler = Sampler(telemetry)
    try:
        with Device.open() as device:
            return measure(
                device,
                chosen.open,
                chosen.size,
                batch=batch,
                seconds=seconds,
                graph=graph,
                read_power=sampler.sample,
            ).as_dict()
    finally:
        for source in telemetry:
            source.close()


def _print(result: Dict[str, object], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(result, indent=2))
        return
    for name, value in result.items():
        shown = json.dumps(value) if isinstance(value, dict) else value
        click.echo(f"{name:>18}  {shown}")
