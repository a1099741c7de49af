from edgecount.observe.redaction import redact_deep
from edgecount.redact import Redactor


def test_every_text_in_a_structure_is_redacted():
    value = {
        "url": "rtsp://u:hunter2@h/1",
        "deep": [{"hunter2": ("x hunter2", 3, None, True, 1.5)}],
        "error": ValueError("hunter2"),
    }
    redacted = redact_deep(value, Redactor(["hunter2"]))
    assert "hunter2" not in str(redacted)
    assert redacted["deep"] == [{"***": ["x ***", 3, None, True, 1.5]}]
    assert redacted["error"] == "ValueError('***')"
