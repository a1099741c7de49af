"""The references in docs/ say what the code does."""

import importlib.util
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[3] / "docs"


@pytest.fixture(scope="module")
def generator():
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_metrics_are_current(generator):
    assert (DOCS / "metrics.md").read_text() == generator.metrics_page(), "run docs/generate.py"


def test_events_are_explained_and_current(generator):
    assert (DOCS / "events.md").read_text() == generator.events_page(), "run docs/generate.py"


def test_events_have_stable_names(generator):
    calls = [c for p in generator.PACKAGE.rglob("*.py") for c in generator.calls_of(p)]
    assert len(calls) > 10
    assert [c for c in calls if not re.fullmatch(r"[a-z]+(_[a-z]+)*", c.event)] == []
