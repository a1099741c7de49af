import hashlib
import json

import pytest
from click.testing import CliRunner

from edgecount.cli.promote import command
from edgecount.errors import ConfigError, DatasetError, ModelError
from edgecount.infer import recipe as recipes
from edgecount.toolchain.report.promote import default_of, former_of, go_back, promote


def _row(key, content, ap50, error):
    return {
        "key": key,
        "title": key,
        "file": f"head-n.{key}.onnx" if key != "fp32" else "head-n.onnx",
        "sha256": hashlib.sha256(content).hexdigest(),
        "ap50": ap50,
        "count": None
        if error is None
        else {"true": 66, "missed": error, "extra": 0, "error": error},
    }


@pytest.fixture
def measured(tmp_path):
    """A model folder with a report on a good and a bad variant: folder, model, report."""
    folder = tmp_path / "head-n"
    folder.mkdir()
    model = folder / "head-n.onnx"
    model.write_bytes(b"fp32")
    shipped = recipes.shipped()["head-n"] / "recipe.yaml"
    (folder / "recipe.yaml").write_text(shipped.read_text())
    out = tmp_path / "report"
    (out / "models").mkdir(parents=True)
    (out / "models" / "head-n.int8-tuned.onnx").write_bytes(b"tuned")
    (folder / "head-n.int8-qat.onnx").write_bytes(b"trained")
    rows = [
        _row("fp32", b"fp32", 0.945, 1),
        _row("fp16", b"half", 0.945, 1),
        _row("int8-basic", b"basic", 0.68, 9),
        _row("int8-tuned", b"tuned", 0.942, 1),
        _row("int8-qat", b"trained", 0.944, 0),
    ]
    report = out / "report.json"
    report.write_text(json.dumps({"format": 1, "variants": rows}))
    return folder, model, report


def _recipe(folder):
    return recipes.load(folder / "recipe.yaml")


def test_a_variant_inside_the_budget_becomes_the_default_and_can_be_undone(measured):
    folder, model, report = measured
    first = promote(model, _recipe(folder), report, "int8-tuned")
    assert first.path == default_of(model) == folder / "head-n.int8.onnx"
    assert first.path.read_bytes() == b"tuned"
    assert not former_of(model).exists()
    second = promote(model, _recipe(folder), report, "int8-qat")
    assert second.path.read_bytes() == b"trained"
    assert former_of(model).read_bytes() == b"tuned"
    assert go_back(model).read_bytes() == b"tuned"
    assert go_back(model).read_bytes() == b"trained"
    assert model.read_bytes() == b"fp32"


def test_promoting_twice_keeps_the_former(measured):
    folder, model, report = measured
    promote(model, _recipe(folder), report, "int8-tuned")
    promote(model, _recipe(folder), report, "int8-qat")
    promote(model, _recipe(folder), report, "int8-qat")
    assert former_of(model).read_bytes() == b"tuned"


def test_a_variant_beyond_the_budget_changes_nothing(measured):
    folder, model, report = measured
    data = json.loads(report.read_text())
    data["variants"][3]["ap50"] = 0.93
    report.write_text(json.dumps(data))
    result = promote(model, _recipe(folder), report, "int8-tuned")
    assert result.path is None
    assert [verdict.kept for verdict in result.verdicts] == [False, True]
    assert not default_of(model).exists()


def test_files_that_were_not_measured_are_refused(measured):
    folder, model, report = measured
    (report.parent / "models" / "head-n.int8-tuned.onnx").write_bytes(b"other")
    with pytest.raises(ModelError, match="neither beside"):
        promote(model, _recipe(folder), report, "int8-tuned")
    model.write_bytes(b"retrained")
    with pytest.raises(ModelError, match="another file"):
        promote(model, _recipe(folder), report, "int8-tuned")


def test_a_report_without_counts_needs_a_word(measured):
    folder, model, report = measured
    data = json.loads(report.read_text())
    for row in data["variants"]:
        row["count"] = None
    report.write_text(json.dumps(data))
    with pytest.raises(ConfigError, match="--video and --truth"):
        promote(model, _recipe(folder), report, "int8-tuned")
    assert promote(model, _recipe(folder), report, "int8-tuned", counts_needed=False).path


def test_mistakes_are_named(measured):
    folder, model, report = measured
    with pytest.raises(ConfigError, match="int8-basic, int8-tuned, int8-qat"):
        promote(model, _recipe(folder), report, "fp16")
    with pytest.raises(ConfigError, match=r"no head-n\.int8\.former\.onnx"):
        go_back(model)
    report.write_text("{}")
    with pytest.raises(DatasetError, match="no report of edgecount"):
        promote(model, _recipe(folder), report, "int8-tuned")


def test_the_command_says_which_budget_failed(measured):
    _, model, report = measured
    data = json.loads(report.read_text())
    data["variants"][4]["count"]["error"] = 3
    report.write_text(json.dumps(data))
    args = ["--model", str(model), "--report", str(report), "--variant", "int8-qat"]
    result = CliRunner().invoke(command, args)
    assert result.exit_code == 1
    assert "kept    int8-qat: AP50" in result.output
    assert "FAILED  int8-qat: count error 3 against 1 of 66 crossings, +2" in result.output
    good = CliRunner().invoke(command, ["--model", str(model), "--report", str(report)])
    assert good.exit_code == 0
    assert default_of(model).read_bytes() == b"tuned"
