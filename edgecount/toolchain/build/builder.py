"""Build an engine, or find it built."""

import hashlib
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from time import perf_counter
from typing import Optional, Tuple

import onnx

from edgecount import __version__
from edgecount.infer.tensorrt.cache import EngineCache, Entry
from edgecount.infer.tensorrt.device import DeviceFacts
from edgecount.infer.tensorrt.manifest import Layer, Manifest
from edgecount.infer.tensorrt.versions import TensorRt, Version
from edgecount.toolchain.build import process
from edgecount.toolchain.build.job import Calibration, Job, Pictures, Progress
from edgecount.toolchain.build.onnx_file import opset_note
from edgecount.toolchain.build.request import BuildRequest, Plan, plan
from edgecount.toolchain.quantize.half import to_half
from edgecount.toolchain.quantize.precision import precisions, rules_of
from edgecount.toolchain.quantize.table import CalibrationTable

_MINMAX = "minmax"


@dataclass(frozen=True)
class Built:
    """The engine that was asked for.

    Attributes:
        entry: It and its manifest.
        reused: Whether it was there already.
        reason: Why it was built, in one sentence; None where it was reused.
        notes: What the user should know, a sentence each.
    """

    entry: Entry
    reused: bool
    reason: Optional[str]
    notes: Tuple[str, ...]


def build(
    request: BuildRequest,
    trt: TensorRt,
    device: DeviceFacts,
    cache: EngineCache,
    progress: Progress,
    *,
    force: bool = False,
) -> Built:
    """Build what is asked for, unless the cache has it.

    Args:
        request: What is wanted.
        trt: TensorRT of this machine.
        device: Its GPU.
        cache: Where engines lie.
        progress: Told how it goes on.
        force: Build also where the cache has it.

    Raises:
        ConfigError: The request contradicts itself.
        ModelError: The file cannot be built.
        EngineError: TensorRT or the disk failed. The last good engine stays.
    """
    planned = plan(request, trt, device)
    for note in planned.notes:
        progress.say(note)
    # Who builds by hand does not want the engine any more that a rollback holds.
    cache.release(planned.key)
    with cache.slot(planned.key).building():
        entry, reason = cache.lookup(planned.key)
        if entry is not None and reason is None and not force:
            return Built(cache.use(entry), True, None, planned.notes)
        reason = reason or "asked for"
        progress.say(f"{reason} ({planned.precision}, {planned.profile.text})")
        made = _build(planned, trt, cache, progress)
        return Built(made, False, reason, planned.notes)


def _build(planned: Plan, trt: TensorRt, cache: EngineCache, progress: Progress) -> Entry:
    begun = perf_counter()
    with cache.slot(planned.key).scratch() as folder:
        prepared, out = folder / "prepared.onnx", folder / "engine"
        prepared.write_bytes(_prepared(planned).SerializeToString())
        outcome = process.run(_job(planned, trt, cache, prepared, out), progress)
        data = out.read_bytes()
    manifest = Manifest(
        key=planned.key,
        engine_sha256=hashlib.sha256(data).hexdigest(),
        engine_bytes=len(data),
        built_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        build_seconds=round(perf_counter() - begun, 3),
        workspace_used=outcome.workspace,
        layers_of="engine" if outcome.layers_of == "engine" else "network",
        layers=[Layer.model_validate(layer) for layer in outcome.layers],
        edgecount=__version__,
    )
    return cache.publish(manifest, data)


def _prepared(planned: Plan) -> onnx.ModelProto:
    """The file as TensorRT gets it: in FP16 itself where the build takes types from it."""
    model = planned.file.model
    if planned.precision != "fp16" or not planned.strongly_typed:
        return model
    kept = set(_kept(planned, "fp32"))
    return to_half(model, lambda name: name in kept)


def _job(planned: Plan, trt: TensorRt, cache: EngineCache, prepared: Path, out: Path) -> Job:
    request = planned.request
    shape = planned.file.input_shape
    return Job(
        runtime=trt.version.product,
        source=planned.file.path,
        onnx=prepared,
        opset_note=opset_note(planned.file, trt.version),
        precision=planned.precision,
        strongly_typed=planned.strongly_typed,
        fp16=_kept(planned, "fp16"),
        fp32=_kept(planned, "fp32"),
        profile=planned.profile,
        dynamic=any(not isinstance(axis, int) for axis in shape),
        workspace=request.workspace,
        dla=request.dla,
        calibration=_calibration(request.calibration, planned, trt, cache)
        if request.calibration
        else None,
        timing_cache=cache.timing_cache(planned.key) if trt.features.timing_cache else None,
        out=out,
    )


def _calibration(path: Path, planned: Plan, trt: TensorRt, cache: EngineCache) -> Calibration:
    if path.is_dir():
        store = cache.calibration_cache(planned.key)
        pictures = Pictures(folder=path.resolve(), recipe=planned.recipe, store=store)
        return Calibration(algorithm=planned.request.calibrator, pictures=pictures)
    table = CalibrationTable.load(path)
    return Calibration(
        algorithm="minmax" if table.method == _MINMAX else "entropy",
        cache=table.to_tensorrt_cache(_header_version(trt.version)),
    )


def _header_version(version: Version) -> int:
    """As NvInferVersion.h writes it: 8.2.5 is 8205, 10.3.0 is 100300."""
    major, minor, patch = [*version.numbers, 0, 0][:3]
    return major * (10000 if major >= 10 else 1000) + minor * 100 + patch


def _kept(planned: Plan, precision: str) -> Tuple[str, ...]:
    """Names of the layers that the recipe keeps in a precision.

    Raises:
        ConfigError: A pattern of the recipe matches no layer.
    """
    found = precisions(planned.file.model, rules_of(planned.recipe.precision))
    return tuple(name for name, kept in found.items() if kept == precision)
