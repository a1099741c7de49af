"""Which backend counts, and what is said when it is not the one that should."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from support.onnx_models import spot_model

from edgecount.config import Settings
from edgecount.errors import DeviceLostError, EngineError, MissingExtraError, ModelError
from edgecount.infer.cpu import CpuBackend
from edgecount.runtime.backends import choose
from edgecount.runtime.plan import prepare


def no_timer(_stage, _seconds):
    pass


@pytest.fixture
def plan_with(tmp_path):
    onnx = spot_model(tmp_path / "spots.onnx", "yolox")

    def make(**model):
        data = {
            "model": {"path": str(onnx), **model},
            "cameras": [{"name": n, "source": f"{n}.avi"} for n in ("door", "gate")],
        }
        return prepare(Settings.model_validate(data), no_timer)

    return make


class Modules:
    """Stands for the accelerated backends' modules; says what each was asked to build."""

    def __init__(self, **outcomes):
        self.outcomes = {f"edgecount.infer.{n}.backend": o for n, o in outcomes.items()}
        self.asked = []

    def __call__(self, module):
        def create(spec):
            self.asked.append((module.split(".")[2], spec))
            outcome = self.outcomes[module]
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        return SimpleNamespace(create=create)


def chosen(plan, modules=None, gpu=True):
    return choose(plan, no_timer, load=modules or Modules(), gpu=lambda: gpu)


def test_without_a_gpu_auto_counts_on_the_cpu_and_complains_of_nothing(plan_with):
    choice = chosen(plan_with(), gpu=False)
    assert isinstance(choice.backend, CpuBackend)
    assert choice.fallback is None


def test_auto_takes_tensorrt_before_cuda(plan_with):
    modules = Modules(tensorrt="engine", cuda="runtime")
    assert chosen(plan_with(), modules).backend == "engine"
    assert [name for name, _ in modules.asked] == ["tensorrt"]


def test_a_gpu_that_cannot_be_used_is_a_fallback_with_every_reason(plan_with):
    modules = Modules(tensorrt=MissingExtraError("tensorrt", "x"), cuda=EngineError("no memory"))
    choice = chosen(plan_with(), modules)
    assert isinstance(choice.backend, CpuBackend)
    assert "tensorrt: " in choice.fallback
    assert "cuda: no memory" in choice.fallback


def test_the_second_choice_is_a_fallback_too(plan_with):
    choice = chosen(plan_with(), Modules(tensorrt=EngineError("refused"), cuda="runtime"))
    assert choice.backend == "runtime"
    assert choice.fallback == "tensorrt: refused"


def test_what_was_asked_for_is_tried_even_where_no_gpu_is_seen(plan_with):
    modules = Modules(cuda=EngineError("no device"))
    choice = chosen(plan_with(backend="cuda"), modules, gpu=False)
    assert isinstance(choice.backend, CpuBackend)
    assert choice.fallback == "cuda: no device"


def test_a_device_that_was_lost_and_does_not_open_again_is_no_reason_for_the_cpu(plan_with):
    plan, lost = plan_with(backend="cuda"), Modules(cuda=DeviceLostError("sticky"))
    assert isinstance(chosen(plan, lost).backend, CpuBackend)
    with pytest.raises(DeviceLostError, match="sticky"):
        chosen(replace(plan, reopens=True), lost)


def test_without_fallback_the_failure_is_the_answer(plan_with):
    with pytest.raises(EngineError, match="no device"):
        chosen(plan_with(backend="cuda", fallback=False), Modules(cuda=EngineError("no device")))


def test_a_wrong_model_is_not_hidden_by_falling_back(plan_with):
    with pytest.raises(ModelError, match="wrong head"):
        chosen(plan_with(backend="cuda"), Modules(cuda=ModelError("wrong head")))


def test_the_cpu_is_the_cpu(plan_with):
    choice = chosen(plan_with(backend="cpu"))
    assert isinstance(choice.backend, CpuBackend)


def test_a_backend_is_told_what_it_is_made_of(plan_with):
    plan = plan_with(backend="cuda", input_size=None)
    modules = Modules(cuda="runtime")
    chosen(plan, modules)
    ((_, spec),) = modules.asked
    assert spec.path == plan.model.path
    assert spec.size == plan.model.detector.size
    assert [c.name for c in spec.cameras] == ["door", "gate"]


def test_an_engine_that_is_still_built_is_a_fallback_until_it_counts(plan_with):
    engine = SimpleNamespace(interim="tensorrt: the engine is being built")
    choice = chosen(plan_with(), Modules(tensorrt=engine))
    assert choice.fallback == "tensorrt: the engine is being built"
    engine.interim = None
    assert choice.fallback is None


def test_a_backend_may_ask_for_a_longer_start(plan_with):
    modules, asked = Modules(tensorrt="engine"), []
    choose(plan_with(), no_timer, starting=asked.append, load=modules, gpu=lambda: True)
    ((_, spec),) = modules.asked
    spec.starting(30.0)
    assert asked == [30.0]
