"""Makes the report: variants, measurements, page and JSON."""

import json
import os
import platform
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

from edgecount import __version__
from edgecount.errors import DatasetError
from edgecount.infer import recipe as recipes
from edgecount.infer.detector import input_size
from edgecount.infer.onnxruntime import OrtNetwork
from edgecount.infer.recipe import Recipe
from edgecount.records import UInt8Array
from edgecount.toolchain.evaluate.detect import read_picture
from edgecount.toolchain.evaluate.truth import read_truth_file
from edgecount.toolchain.report import variants as v
from edgecount.toolchain.report.budget import Verdict, judge
from edgecount.toolchain.report.detectors import Place
from edgecount.toolchain.report.disagreement import most_apart
from edgecount.toolchain.report.measure import Clip, Task, as_dict, measure
from edgecount.toolchain.report.page import Content, Heading, render
from edgecount.toolchain.report.plots import Damage
from edgecount.toolchain.report.sensitivity import damages
from edgecount.toolchain.yolo_files import SUFFIXES, find_pairs

FORMAT = 1
_MOST_IMAGES = 300  # for calibration
_SENSITIVITY_IMAGES = 4
_SHOWN_HISTOGRAMS = 9

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """What a report is asked for.

    Attributes:
        model: Name of a shipped model, or path of an FP32 ONNX file or model folder.
        data: Labelled pictures in YOLO format; ``splits`` of them, or all.
        calibration: Folder of calibration images; some of ``data`` where None.
        video, truth: A clip and its true crossings (``edgecount eval make-truth``), or neither.
        tuned, qat: Files made before; those beside the model where None.
        out: Folder for page, JSON and the files that are made.
        place: Where the networks run.
        turns: Rounds of the measurement of time.
        pictures: How many pictures of disagreement.
        command: The command line, for the page.
    """

    model: str
    data: Path
    out: Path
    splits: Sequence[str] = ()
    calibration: Optional[Path] = None
    video: Optional[str] = None
    truth: Optional[Path] = None
    tuned: Optional[Path] = None
    qat: Optional[Path] = None
    place: Place = field(default_factory=Place)
    turns: int = 20
    pictures: int = 6
    command: str = ""


@dataclass(frozen=True)
class Report:
    """What was written, and its rows as in the JSON."""

    page: Path
    json: Path
    rows: List[Dict[str, Any]]
    verdicts: List[Verdict]


def build(request: Request, progress: Progress) -> Report:
    """Measure all precisions of a model and write ``report.html`` and ``report.json``.

    Args:
        request: What is asked for.
        progress: Told what is being done.

    Raises:
        ConfigError: No such model or backend.
        ModelError, EngineError: A variant cannot be made or run, or FP32 finds nothing of
            what is labelled.
        DatasetError, SourceError: Pictures or clip cannot be read.
        MissingExtraError: A package of the extra is missing.
    """
    path, recipe = _model(request.model)
    pairs = find_pairs(request.data, request.splits or None)
    images, origin = _calibration(request, pairs)
    progress(f"calibrating on {len(images)} pictures")
    notes: List[str] = [origin]
    sources = v.Sources(
        path,
        recipe,
        request.tuned or v.beside(path, "int8"),
        request.qat or v.beside(path, "qat"),
    )
    made = v.prepare(sources, _read(images), request.out / "models", notes.append)
    if sources.qat is None:
        notes.append(f"INT8 + QAT is left out: there is no {path.stem}.qat.onnx beside the model.")
    task = Task(recipe, request.place, pairs, _clip(request), request.turns)
    rows = measure(made.variants, task, read_picture(pairs[0][0]), progress)
    progress("sensitivity of the layers")
    few = images[:: -(-len(images) // _SENSITIVITY_IMAGES)]
    hurt = damages(path, recipe, made.table, list(_read(few)))
    listed = [as_dict(row) for row in rows]
    verdicts = [w for row in listed[1:] for w in judge(row, listed[0], recipe.budget)]
    progress("pages and pictures")
    content = Content(
        heading=_heading(request, recipe, notes),
        rows=rows,
        verdicts=verdicts,
        damages=hurt,
        clipped=v.compared(made.histograms)[:_SHOWN_HISTOGRAMS],
        disagreements=most_apart(rows, request.pictures),
    )
    page, data = request.out / "report.html", request.out / "report.json"
    _write(page, render(content))
    _write(data, json.dumps(_as_json(content, recipe, listed), indent=1) + "\n")
    return Report(page, data, listed, verdicts)


def _model(model: str) -> Tuple[Path, Recipe]:
    given = Path(model)
    path, recipe = recipes.find(*((None, given) if given.exists() else (model, None)))
    if recipe is not None:
        return path, recipe
    network = OrtNetwork(path)
    recipe = recipes.embedded(path, network.metadata()) or recipes.infer(
        path, network.input_shape, network.output_shape, network.metadata()
    )
    input_size(network, recipe, path, None)
    return path, recipe


def _calibration(request: Request, pairs: Sequence[Tuple[Path, Path]]) -> Tuple[List[Path], str]:
    """Pictures to calibrate on, evenly chosen, and a sentence that says which."""
    if request.calibration is None:
        pictures = [picture for picture, _ in pairs]
        origin = (
            "Calibrated on some of the pictures that are measured on: give others with --images."
        )
    else:
        folder = request.calibration
        pictures = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
        origin = f"Calibrated on pictures of {folder.name}."
    if not pictures:
        raise DatasetError(f"{request.calibration} holds no pictures ({', '.join(SUFFIXES)})")
    every = -(-len(pictures) // _MOST_IMAGES)
    return pictures[::every], origin


def _read(paths: Sequence[Path]) -> Iterator[UInt8Array]:
    for path in paths:
        yield read_picture(path)


def _clip(request: Request) -> Optional[Clip]:
    if request.video is None or request.truth is None:
        return None
    return Clip(request.video, read_truth_file(request.truth))


def _heading(request: Request, recipe: Recipe, notes: Sequence[str]) -> Heading:
    width, height = request.place.input_size(recipe)
    return Heading(
        title=f"{recipe.name}: what each precision costs and gives",
        made=f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC, edgecount {__version__}",
        place=request.place.describe(),
        machine=_machine(),
        size=f"{width}×{height}",
        clip=Path(request.video).name if request.video and request.truth else None,
        command=request.command,
        notes=notes,
    )


def _machine() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [x.partition(":")[2].strip() for x in lines if x.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"


def _as_json(content: Content, recipe: Recipe, rows: Sequence[Dict[str, Any]]) -> Dict[str, Any]:
    heading = content.heading
    return {
        "format": FORMAT,
        "model": recipe.name,
        "budget": recipe.budget.model_dump(),
        **{k: x for k, x in vars(heading).items() if k not in ("title", "notes")},
        "notes": list(heading.notes),
        "variants": list(rows),
        "verdicts": [verdict._asdict() for verdict in content.verdicts],
        "sensitivity": [_damage(d) for d in content.damages],
        "disagreements": {d.name: d.apart for d in content.disagreements},
    }


def _damage(one: Damage) -> Dict[str, Any]:
    return {"layer": one.layer, "sqnr_db": round(one.sqnr_db, 2)}


def _write(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
