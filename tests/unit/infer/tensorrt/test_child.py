import os
import signal
import sys
import time
from pathlib import Path

import pytest

from edgecount.errors import EngineError
from edgecount.infer.tensorrt.child import ChildBuild, build_command
from edgecount.infer.tensorrt.keeper import Outcome
from edgecount.infer.tensorrt.manifest import BuildKey
from edgecount.infer.tensorrt.profile import Profile


def python(code):
    return [sys.executable, "-c", code]


def wait(build):
    deadline = time.monotonic() + 20.0
    while time.monotonic() < deadline:
        outcome = build.poll()
        if outcome is not None:
            return outcome
        time.sleep(0.01)
    raise AssertionError("the build does not end")


def test_success_and_failure():
    assert wait(ChildBuild(python("print('{}')"))) == Outcome(None)
    failing = python("import sys; print('one', file=sys.stderr); sys.exit('no kernels for SM 9.0')")
    assert wait(ChildBuild(failing)) == Outcome("no kernels for SM 9.0")
    assert wait(ChildBuild(python("raise SystemExit(3)"))) == Outcome("the process ended with 3")


def test_a_process_that_the_kernel_kills_ran_out_of_memory():
    killed = f"import os; os.kill(os.getpid(), {int(signal.SIGKILL)})"
    error = wait(ChildBuild(python(killed))).error
    assert error == "the process was ended by SIGKILL: the system ran out of memory"


def test_it_yields_the_processor_and_lives_in_a_group_of_its_own(tmp_path):
    told = tmp_path / "told"
    code = (
        "import os, time; time.sleep(0.3); "
        f"open({str(told)!r}, 'w').write(f'{{os.nice(0)}} {{os.getpgrp() == os.getpid()}}')"
    )
    assert wait(ChildBuild(python(code))) == Outcome(None)
    assert told.read_text() == f"{max(10, os.nice(0))} True"


def test_stopping_ends_it_and_its_children(tmp_path):
    mark = tmp_path / "pid"
    code = (
        "import subprocess, sys, time; "
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
        f"open({str(mark)!r}, 'w').write(str(child.pid)); time.sleep(60)"
    )
    build = ChildBuild(python(code))
    while not mark.exists() or not mark.read_text():
        time.sleep(0.01)
    build.stop()
    assert build.poll() is not None
    deadline = time.monotonic() + 10.0
    while _alive(int(mark.read_text())) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _alive(int(mark.read_text()))
    build.stop()


def test_one_that_takes_too_long_is_stopped():
    now = [0.0]
    build = ChildBuild(python("import time; time.sleep(60)"), longest_s=7200, clock=lambda: now[0])
    assert build.poll() is None
    now[0] = 7200.0
    outcome = build.poll()
    assert outcome is not None
    assert outcome.error == "it took longer than 2.0 hours and was stopped"


def test_what_cannot_be_started_is_told():
    with pytest.raises(EngineError, match="cannot start the build"):
        ChildBuild(["/does/not/exist"])


@pytest.mark.parametrize("asked", ["auto", "int8"])
def test_the_command_asks_for_just_the_engine_of_the_key(asked):
    from edgecount.cli.build import command as build

    key = BuildKey(
        model="head-n",
        model_sha256="",
        recipe_sha256="",
        calibration_sha256="",
        runtime="tensorrt",
        runtime_version="10.3.0",
        cuda="12.6",
        driver="540",
        device="Orin",
        sm="8.7",
        precision="int8",
        profile=Profile(min=(1, 3, 416, 416), opt=(2, 3, 416, 416), max=(4, 3, 416, 416)),
        workspace=1 << 30,
        dla=True,
    )
    command = build_command("head-n", key, asked)
    assert command[:4] == [sys.executable, "-m", "edgecount", "build"]
    parsed = build.make_context("build", command[4:]).params
    assert parsed["model"] == "head-n"
    assert (parsed["precision"], parsed["runtime"], parsed["dla"]) == (asked, "tensorrt", True)
    assert (parsed["least"], parsed["usual"], parsed["most"]) == (
        "1x3x416x416",
        "2x3x416x416",
        "4x3x416x416",
    )
    assert parsed["workspace"] == 1 << 30
    assert parsed["as_json"]


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
