import json

from click.testing import CliRunner

from edgecount.cli.bench import command
from edgecount.toolchain import bench_engine, engines


def run(*arguments):
    return CliRunner().invoke(command, list(arguments))


def test_something_must_be_measured():
    result = run()
    assert result.exit_code == 2
    assert "give --source to measure the pipeline, or an ENGINE" in result.output


def test_an_engine_file_that_is_not_there_is_a_mistake_of_the_user():
    result = run("gone.engine")
    assert result.exit_code != 0
    assert "gone.engine" in str(result.exception) or "TensorRT" in str(result.exception)


def test_json_holds_what_was_measured(monkeypatch):
    class Measured:
        def as_dict(self):
            return {"fps": 25.0, "memory": {"within_limit": True}}

    class Opened:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            """Nothing to close."""

    asked = {}

    def measure(device, open_network, size, **options):
        asked.update(options)
        return Measured()

    chosen = engines.EngineToRun("a.engine", (64, 48), lambda device, stream: None)
    monkeypatch.setattr(engines, "engine_for", lambda target, precision=None: chosen)
    monkeypatch.setattr(bench_engine, "measure", measure)
    monkeypatch.setattr("edgecount.infer.cuda.driver.Device.open", lambda: Opened())
    result = run("a.engine", "--batch", "4", "--seconds", "1.5", "--no-graph", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.output) == {"fps": 25.0, "memory": {"within_limit": True}}
    assert (asked["batch"], asked["seconds"], asked["graph"]) == (4, 1.5, False)
    assert asked["read_power"]() is not None
