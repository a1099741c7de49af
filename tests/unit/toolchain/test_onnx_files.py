"""A file that cannot be read as a network is one sentence, whoever reads it."""

import pytest
from support.onnx_models import spot_model

from edgecount.errors import ModelError
from edgecount.toolchain.onnx_files import leave_note, note_in, read_onnx
from edgecount.toolchain.quantize.foreign import rewrite_file


def test_reads_a_network(tmp_path):
    assert read_onnx(spot_model(tmp_path / "spots.onnx", "yolox")).graph.node


@pytest.mark.parametrize("content", [b"nothing of the kind", b""])
def test_a_damaged_file(tmp_path, content):
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"m\.onnx is no ONNX file, or a damaged one"):
        read_onnx(path)
    with pytest.raises(ModelError, match=r"m\.onnx is no ONNX file, or a damaged one"):
        rewrite_file(path, tmp_path / "out.onnx")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ModelError, match=r"cannot read .*m\.onnx: No such file"):
        read_onnx(tmp_path / "m.onnx")


def test_a_note_replaces_the_one_under_its_key(tmp_path):
    model = read_onnx(spot_model(tmp_path / "spots.onnx", "yolox"))
    assert note_in(model, "how") is None
    leave_note(model, "how", "first")
    leave_note(model, "other", "kept")
    leave_note(model, "how", "second")
    assert (note_in(model, "how"), note_in(model, "other")) == ("second", "kept")
    assert sum(entry.key == "how" for entry in model.metadata_props) == 1
