import os
from typing import Any, ClassVar, Dict, List

import cv2
import pytest

from edgecount.capture import open_source, rtsp
from edgecount.capture._rtsp_probe import Cause, Finding
from edgecount.errors import ConfigError, SourceError

URL = "rtsp://viewer:hunter22@cam.example/stream"


class Closed:
    """A capture that could not be opened; notes how it was tried."""

    tried: ClassVar[List[Dict[str, Any]]] = []

    def __init__(self, url: str, api: int, parameters: List[int]) -> None:
        Closed.tried.append(
            {
                "url": url,
                "api": api,
                "parameters": dict(zip(parameters[::2], parameters[1::2])),
                "options": os.environ.get("OPENCV_FFMPEG_CAPTURE_OPTIONS", ""),
            }
        )

    def isOpened(self) -> bool:  # noqa: N802
        return False


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    Closed.tried = []
    monkeypatch.setattr(cv2, "VideoCapture", Closed)


def found(monkeypatch: pytest.MonkeyPatch, cause: Cause, detail: str = "") -> None:
    """Let the server be there, and the stream refused for ``cause``."""
    monkeypatch.setattr(rtsp, "knock", lambda url, timeout: Finding(Cause.NONE))
    monkeypatch.setattr(rtsp, "probe", lambda url, timeout: Finding(cause, detail))


def error_of(options: Dict[str, Any]) -> SourceError:
    with pytest.raises(SourceError) as caught:
        open_source("door", URL, options).open()
    return caught.value


def test_how_it_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    found(monkeypatch, Cause.NONE)
    error_of({"transport": "udp", "open_timeout_s": 2, "read_timeout_s": 4, "threads": 2})
    (tried,) = Closed.tried
    assert tried["api"] == cv2.CAP_FFMPEG
    assert tried["url"] == URL
    assert tried["parameters"][cv2.CAP_PROP_OPEN_TIMEOUT_MSEC] == 2000
    assert tried["parameters"][cv2.CAP_PROP_READ_TIMEOUT_MSEC] == 4000
    options = dict(o.split(";") for o in tried["options"].split("|"))
    assert options == {"rtsp_transport": "udp", "fflags": "nobuffer", "analyzeduration": "500000"}
    assert "OPENCV_FFMPEG_CAPTURE_OPTIONS" not in os.environ


def test_further_ffmpeg_options(monkeypatch: pytest.MonkeyPatch) -> None:
    found(monkeypatch, Cause.NONE)
    error_of({"ffmpeg": {"max_delay": "200000"}})
    assert "max_delay;200000" in Closed.tried[0]["options"]


def test_after_a_stream_that_is_described_and_does_not_open_it_looks_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found(monkeypatch, Cause.NONE)
    source = open_source("door", URL, {})
    for _ in range(2):
        with pytest.raises(SourceError):
            source.open()
    assert "analyzeduration" in Closed.tried[0]["options"]
    assert "analyzeduration" not in Closed.tried[1]["options"]


def test_a_camera_that_is_away_never_gets_into_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtsp, "knock", lambda url, timeout: Finding(Cause.SILENT))
    assert "no answer" in str(error_of({}))
    assert Closed.tried == []


@pytest.mark.parametrize("cause", list(Cause))
def test_every_cause_has_words_and_no_password(
    monkeypatch: pytest.MonkeyPatch, cause: Cause
) -> None:
    found(monkeypatch, cause)
    error = error_of({})
    assert "hunter22" not in str(error)
    assert "rtsp://viewer:***@cam.example/stream" in str(error)
    assert error.retry
    login = cause in (Cause.LOGIN_NEEDED, Cause.LOGIN_REFUSED)
    assert error.retry_after == (30.0 if login else 0.0)


def test_a_malformed_url_is_a_configuration_error_without_the_password() -> None:
    with pytest.raises(ConfigError, match="no RTSP URL") as caught:
        open_source("door", "rtsp://viewer:hunter22@cam:port/x", {})
    assert "hunter22" not in str(caught.value)
