"""The building process: it may die, its parent may not."""

import sys
from pathlib import Path

import pytest

from edgecount.errors import ConfigError, EngineError, ModelError
from edgecount.infer.tensorrt.profile import Profile
from edgecount.toolchain.build import process
from edgecount.toolchain.build.job import Job

SHAPE = (1, 3, 64, 64)
_PROLOGUE = """
import json, os, signal, sys
job = json.loads(sys.stdin.readline())
events = os.fdopen(int(sys.argv[-1]), "w")
def emit(**fields):
    events.write(json.dumps(fields) + "\\n"); events.flush()
def done():
    open(job["out"], "wb").write(b"engine")
    emit(kind="done", layers=[], layers_of="network")
large = job["workspace"] > 2**30
"""


class Heard:
    def __init__(self) -> None:
        self.said = []
        self.phases = []

    def phase(self, name, parent, steps) -> None:
        self.phases.append((name, parent, steps))

    def step(self, name, done) -> None:
        self.phases.append((name, done))

    def finish(self, name) -> None:
        self.phases.append((name, "finished"))

    def say(self, text) -> None:
        self.said.append(text)


@pytest.fixture
def build(tmp_path):
    def run(script: str, workspace: int = 2**31):
        job = Job(
            runtime="tensorrt",
            source=Path("m.onnx"),
            onnx=tmp_path / "m.onnx",
            precision="fp16",
            strongly_typed=False,
            profile=Profile(min=SHAPE, opt=SHAPE, max=SHAPE),
            dynamic=False,
            workspace=workspace,
            out=tmp_path / "engine",
        )
        heard = Heard()
        return process.run(job, heard, (sys.executable, "-c", _PROLOGUE + script)), heard

    return run


def test_events_are_passed_on(build) -> None:
    outcome, heard = build(
        'emit(kind="phase", name="a", parent=None, steps=2); emit(kind="step", name="a", done=1)\n'
        'emit(kind="finish", name="a"); emit(kind="say", text="hello"); done()'
    )
    assert heard.phases == [("a", None, 2), ("a", 1), ("a", "finished")]
    assert heard.said == ["hello"]
    assert outcome == ([], "network", 2**31)


def test_one_that_is_killed_is_tried_once_more_with_less_workspace(build) -> None:
    outcome, heard = build("if large: os.kill(os.getpid(), signal.SIGKILL)\ndone()")
    assert outcome.workspace == 2**29
    (said,) = heard.said
    assert said.startswith("the building process was killed (SIGKILL, as Linux does when memory ")
    assert said.endswith("runs out); trying once more with 512 MiB of workspace")


def test_one_that_runs_out_of_memory_is_tried_once_more(build) -> None:
    outcome, heard = build(
        'if large: emit(kind="error", error="memory", message="cudaMalloc"); sys.exit(1)\ndone()'
    )
    assert outcome.workspace == 2**29
    assert heard.said[0].startswith("memory ran out (cudaMalloc); trying once more")


def test_a_second_death_is_an_error_that_says_what_to_do(build) -> None:
    with pytest.raises(EngineError, match=r"killed \(SIGSEGV\), twice: close other programs"):
        build("os.kill(os.getpid(), signal.SIGSEGV)")


def test_a_small_workspace_does_not_grow(build) -> None:
    with pytest.raises(EngineError):
        build("os.kill(os.getpid(), signal.SIGKILL)", workspace=2**20)
    outcome, _ = build(
        "flag = job['out'] + '.tried'\n"
        "if not os.path.exists(flag): open(flag, 'w'); os.kill(os.getpid(), signal.SIGKILL)\n"
        "done()",
        workspace=2**20,
    )
    assert outcome.workspace == 2**20


@pytest.mark.parametrize(
    ("kind", "error"), [("model", ModelError), ("engine", EngineError), ("config", ConfigError)]
)
def test_a_reported_error_is_raised_and_not_tried_again(build, tmp_path, kind, error) -> None:
    with pytest.raises(error, match="cannot do it"):
        build(
            f"open({str(tmp_path / 'tries')!r}, 'a').write('x')\n"
            f'emit(kind="error", error="{kind}", message="cannot do it"); sys.exit(1)'
        )
    assert (tmp_path / "tries").read_text() == "x"


def test_one_that_fails_by_itself_says_its_last_line(build) -> None:
    with pytest.raises(EngineError, match="ended with 1: ZeroDivisionError"):
        build("1 / 0")


def test_an_event_cut_off_by_death_does_not_confuse(build) -> None:
    outcome, _ = build(
        "if large: events.write('{\"ki'); events.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
        "done()"
    )
    assert outcome.workspace == 2**29
