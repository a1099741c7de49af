"""Every file in edgecount/capture keeps the contract of a source."""

import inspect
import re

import pytest

from edgecount.capture import Clock, kinds, resolve
from edgecount.config import Strict
from edgecount.errors import SourceError

EXAMPLES = {
    "file": ["clip.avi", "file:///clips/a.mp4", "folder/", "frames/*.png"],
    "usb": ["usb:0", "usb:/dev/v4l/by-id/usb-Logi", "/dev/video1"],
    "rtsp": ["rtsp://u:hunter22@host/path", "rtsps://host/path"],
    "gstreamer": [
        "gst:videotestsrc ! appsink",
        "gst:rtspsrc location=rtsp://u:hunter22@h/ ! appsink",
    ],
}
CHOSEN_BY_KIND = {"nvdec": "rtsp://u:hunter22@host/path"}


def example(kind: str) -> str:
    return CHOSEN_BY_KIND.get(kind) or EXAMPLES[kind][-1]


@pytest.mark.parametrize("kind", kinds())
class TestEverySource:
    def test_options_are_frozen_described_and_have_defaults(self, kind: str) -> None:
        options = resolve("", kind).Options
        assert issubclass(options, Strict)
        assert options().model_config["frozen"]
        assert all(field.description for field in options.model_fields.values())

    def test_it_is_created_without_being_opened(self, kind: str) -> None:
        module = resolve("", kind)
        source = module.create("door", example(kind), module.Options(), clock=Clock(), max_fps=None)
        assert isinstance(source.live, bool)
        assert isinstance(source.label, str)
        assert source.skipped == 0
        for verb in ("open", "read", "interrupt", "close"):
            assert not inspect.signature(getattr(source, verb)).parameters

    def test_its_label_hides_passwords(self, kind: str) -> None:
        module = resolve("", kind)
        source = module.create("door", example(kind), module.Options(), clock=Clock(), max_fps=None)
        assert "hunter22" not in source.label

    def test_reading_before_open_is_an_error_and_closing_is_not(self, kind: str) -> None:
        module = resolve("", kind)
        source = module.create("door", example(kind), module.Options(), clock=Clock(), max_fps=10.0)
        source.close()
        source.interrupt()
        source.close()
        with pytest.raises(SourceError, match=re.compile("not open|not one")):
            source.read()


@pytest.mark.parametrize(
    ("kind", "source"), [(kind, source) for kind, given in EXAMPLES.items() for source in given]
)
def test_exactly_one_kind_claims_a_source(kind: str, source: str) -> None:
    assert [k for k in kinds() if resolve("", k).claims(source)] == [kind]
