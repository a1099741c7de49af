"""Make a measured INT8 file the one that counts, if it earns it; and the way back.

The FP32 file of a model stays what it is, since boards without INT8 units need it. The service
and the engine builder take ``NAME.int8.onnx`` beside ``NAME.onnx`` where INT8 is faster: that
file is what is promoted here.
"""

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional

from edgecount.errors import ConfigError, DatasetError, ModelError
from edgecount.infer.recipe import Recipe
from edgecount.toolchain.report import variants as v
from edgecount.toolchain.report.budget import Verdict, judge

PROMOTABLE = (v.BASIC, v.TUNED, v.QAT)
_FORMAT = 1


@dataclass(frozen=True)
class Promotion:
    """What came of it.

    Attributes:
        verdicts: One for each budget.
        path: The file that counts in INT8 from now on; None where a budget failed.
    """

    verdicts: List[Verdict]
    path: Optional[Path]


def promote(
    model: Path, recipe: Recipe, report: Path, key: str, *, counts_needed: bool = True
) -> Promotion:
    """Promote a variant that a report has measured.

    Args:
        model: The FP32 file that the report is of.
        recipe: Its recipe; its budget decides.
        report: ``report.json`` of ``edgecount report``.
        key: Which variant: one of ``PROMOTABLE``.
        counts_needed: Whether a report without counts of a clip is refused.

    Raises:
        ConfigError: There is no such variant in the report, or it has no counts.
        DatasetError: The report cannot be read.
        ModelError: The model or the variant is not the file that was measured, or the file
            cannot be written.
    """
    rows = _rows(report)
    row, base = _row(rows, key), rows[v.FP32]
    if _digest(model) != base["sha256"]:
        raise ModelError(f"{report} was made for another file than {model}: make a new report")
    variant = _variant(report, model, row)
    verdicts = judge(row, base, recipe.budget)
    if counts_needed and row["count"] is None:
        raise ConfigError(
            f"{report} holds no counts, and the budget allows a count error: make it with "
            "--video and --truth, or promote --without-counts"
        )
    if not all(verdict.kept for verdict in verdicts):
        return Promotion(verdicts, None)
    return Promotion(verdicts, _install(variant, model))


def go_back(model: Path) -> Path:
    """Make the former INT8 file of a model its default again; what counted becomes the former.

    Raises:
        ConfigError: There is no former one.
        ModelError: The files cannot be written.
    """
    default, former = default_of(model), former_of(model)
    if not former.is_file():
        raise ConfigError(
            f"there is no {former.name} to go back to; without {default.name} the model counts "
            "in its other precisions"
        )
    try:
        if not default.is_file():
            former.replace(default)
            return default
        aside = former.with_name(former.name + ".part")
        shutil.copy2(str(default), str(aside))
        former.replace(default)
        aside.replace(former)
    except OSError as error:
        raise ModelError(f"cannot go back to {former}: {error}") from error
    return default


def default_of(model: Path) -> Path:
    """The INT8 file that counts: ``head-n.int8.onnx`` beside ``head-n.onnx``."""
    return model.with_name(f"{model.stem}.int8.onnx")


def former_of(model: Path) -> Path:
    """The INT8 file that counted before."""
    return model.with_name(f"{model.stem}.int8.former.onnx")


def _rows(report: Path) -> Dict[str, Dict[str, Any]]:
    try:
        data = json.loads(report.read_text(encoding="utf-8"))
        if data["format"] != _FORMAT:
            raise ValueError(f"not of format {_FORMAT}")
        rows = {row["key"]: row for row in data["variants"]}
        if v.FP32 not in rows:
            raise ValueError("without FP32")
    except OSError as error:
        raise DatasetError(f"cannot read the report {report}: {error}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise DatasetError(
            f"{report} is no report of edgecount ({error}): make one with  edgecount report"
        ) from error
    return rows


def _row(rows: Dict[str, Dict[str, Any]], key: str) -> Dict[str, Any]:
    known = [k for k in rows if k in PROMOTABLE]
    if key not in known:
        raise ConfigError(f"the report has no INT8 variant {key!r}; it has {', '.join(known)}")
    return rows[key]


def _variant(report: Path, model: Path, row: Dict[str, Any]) -> Path:
    """The file of a row, where the report put or found it."""
    for folder in (report.parent / "models", model.parent):
        path: Path = folder / row["file"]
        if path.is_file() and _digest(path) == row["sha256"]:
            return path
    raise ModelError(
        f"the {row['file']} that was measured is neither beside {report} nor beside {model}: "
        "make a new report"
    )


def _install(variant: Path, model: Path) -> Path:
    default, former = default_of(model), former_of(model)
    if default.is_file() and _digest(default) == _digest(variant):
        return default
    try:
        if default.is_file():
            _copy(default, former)
        _copy(variant, default)
    except OSError as error:
        raise ModelError(f"cannot make {variant} the default: {error}") from error
    return default


def _copy(source: Path, target: Path) -> None:
    part = target.with_name(target.name + ".part")
    shutil.copy2(str(source), str(part))
    part.replace(target)


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error}") from error
