import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecount.errors import DatasetError
from edgecount.toolchain.quantize.table import CalibrationTable

INPUT = {"width": 416, "height": 416, "color": "bgr", "mean": [0.0, 0.0, 0.0], "pad": 114.0}


def table(**amax):
    return CalibrationTable("ab", "entropy", 500, "cd", INPUT, amax or {"images": 127.0, "a": 2.54})


def test_scale_is_a_127th_of_the_clipping_point():
    assert table().scale("images") == 1.0
    assert table().scale("a") == pytest.approx(0.02)


def test_an_unknown_tensor_is_named():
    with pytest.raises(DatasetError, match=r"no tensor 'b'.*edgecount calibrate"):
        table().scale("b")


def test_comes_back_from_its_file(tmp_path):
    table().save(tmp_path / "t.json")
    assert CalibrationTable.load(tmp_path / "t.json") == table()
    assert [p.name for p in tmp_path.iterdir()] == ["t.json"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        json.dumps({"format": 1}),
        json.dumps({"format": 2, "amax": {}}),
        json.dumps({"format": 1, "amax": {"a": 0.0}}),
        json.dumps({"format": 1, "amax": {"a": float("nan")}}),
        json.dumps({"format": 1, "amax": {"a": "x"}}),
        json.dumps({"format": 1, "amax": [1]}),
        json.dumps({"format": 1, "amax": {}, "surprise": 1}),
    ],
)
def test_what_is_no_table_is_refused_with_its_path(tmp_path, text):
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(DatasetError, match=r"t\.json is no calibration table"):
        CalibrationTable.load(tmp_path / "t.json")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"cannot read .*t\.json"):
        CalibrationTable.load(tmp_path / "t.json")
    with pytest.raises(DatasetError, match=r"cannot write .*t\.json"):
        table().save(tmp_path / "none" / "t.json")


class TestTensorRtCache:
    def test_its_very_text(self):
        # 1.0 and 0.02 as big-endian float32.
        assert table().to_tensorrt_cache() == (
            "TRT-8205-EntropyCalibration2\nimages: 3f800000\na: 3ca3d70a\n"
        )

    def test_says_which_algorithm_and_version(self):
        made = CalibrationTable("", "minmax", 1, "", {}, {"a": 1.0})
        assert made.to_tensorrt_cache(10300).startswith("TRT-10300-MinMaxCalibration\n")

    @given(
        st.dictionaries(
            st.text("abz/._:[]*()0 9", min_size=1).filter(lambda name: name == name.strip()),
            st.floats(1e-6, 1e6),
            max_size=8,
        )
    )
    def test_comes_back(self, amax):
        back = CalibrationTable.from_tensorrt_cache(
            CalibrationTable("", "entropy", 0, "", {}, amax).to_tensorrt_cache()
        )
        assert back.method == "entropy"
        assert list(back.amax) == list(amax)
        assert list(back.amax.values()) == pytest.approx(list(amax.values()), rel=1e-6)

    def test_names_may_hold_colons_and_blanks(self):
        names = ["(Unnamed Layer* 3) [Conv]_output", "x: 0"]
        lines = ["TRT-8205-EntropyCalibration2", *(f"{name}: 3f800000" for name in names)]
        assert list(CalibrationTable.from_tensorrt_cache("\n".join(lines)).amax) == names

    def test_digits_as_tensorrt_prints_them_without_leading_zeros(self):
        (bits,) = struct.unpack(">I", struct.pack(">f", 1e-30))
        text = f"TRT-8205-EntropyCalibration2\na: {bits:x}\n"
        assert CalibrationTable.from_tensorrt_cache(text).scale("a") == pytest.approx(1e-30)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "no TensorRT calibration cache"),
            ("hello\na: 3f800000", "no TensorRT calibration cache"),
            ("TRT-8205-EntropyCalibration2\na: 3f80000g", "line 2"),
            ("TRT-8205-EntropyCalibration2\na: 3f800000\nb", "line 3"),
        ],
    )
    def test_what_is_none_is_refused(self, text, message):
        with pytest.raises(DatasetError, match=message):
            CalibrationTable.from_tensorrt_cache(text)


class TestInput:
    def test_the_same_recipe_fits_even_at_another_size(self):
        table().check_input({**INPUT, "mean": (0.0, 0.0, 0.0)})
        table().check_input({**INPUT, "width": 640, "height": 640})

    def test_each_difference_is_named(self):
        wanted = {**INPUT, "color": "rgb", "pad": 0.0}
        with pytest.raises(DatasetError, match=r"color: 'bgr', now 'rgb'; pad: 114.0, now 0.0"):
            table().check_input(wanted)
