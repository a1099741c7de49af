from typing import Optional

import pytest

from edgecount.config import ModelSettings
from edgecount.errors import MissingExtraError
from edgecount.infer import onnxruntime, openvino, runtimes


def names(asked: str, version: Optional[str], monkeypatch: pytest.MonkeyPatch) -> list:
    monkeypatch.setattr(openvino, "installed_version", lambda: version)
    found = runtimes.of(ModelSettings.model_validate({"cpu_runtime": asked}))
    return [(one.name, one.version) for one in found]


ORT = ("onnxruntime", onnxruntime.VERSION)


@pytest.mark.parametrize(
    ("asked", "version", "wanted"),
    [
        ("auto", "2026.4", [ORT, ("openvino", "2026.4")]),
        ("auto", None, [ORT]),
        ("onnxruntime", "2026.4", [ORT]),
        ("openvino", "2026.4", [("openvino", "2026.4")]),
    ],
)
def test_what_may_run(
    asked: str, version: Optional[str], wanted: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert names(asked, version, monkeypatch) == wanted


def test_openvino_that_is_asked_for_and_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingExtraError, match=r"edgecount\[openvino\]"):
        names("openvino", None, monkeypatch)


def test_workers() -> None:
    assert runtimes.workers(ModelSettings.model_validate({"threads": 3})) == 3
    assert runtimes.workers(ModelSettings()) >= 1
