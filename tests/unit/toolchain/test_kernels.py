import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgecount.cli.main import cli
from edgecount.errors import EngineError
from edgecount.infer.cuda import compiler
from edgecount.infer.cuda.compiler import Compiled, KernelReport
from edgecount.toolchain import kernels

REPORT = KernelReport("suppress", 58, 1537, 8, 4, 12)


class FakeNvrtc:
    """Compiles anything to four bytes."""

    version = (13, 0)

    def compile(self, path: Path, arch: str, options) -> Compiled:
        return Compiled(b"cubi", (REPORT,), self.version)


def test_every_variant_of_every_source_for_every_architecture() -> None:
    built = list(kernels.build(FakeNvrtc(), ["sm_87", "sm_90"]))  # type: ignore[arg-type]
    wanted = [
        (arch, source, dict(defines))
        for arch in ("sm_87", "sm_90")
        for source, several in kernels.VARIANTS.items()
        for defines in several
    ]
    assert [(b.arch, b.source, dict(b.defines)) for b in built] == wanted
    assert built[0].size == 4
    assert built[0].nvrtc == "13.0"


def test_a_folder_without_a_compiler_says_how_to_fill_it(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="pip install --no-deps --target"):
        kernels.nvrtc_in(tmp_path)


def test_the_command_prints_a_table_or_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler.Nvrtc, "find", classmethod(lambda _: FakeNvrtc()))
    table = CliRunner().invoke(cli, ["kernels", "--arch", "sm_87"])
    assert table.exit_code == 0, table.output
    assert "sm_87   suppress                58    1537      8       16  OUTPUT=0" in table.output
    found = CliRunner().invoke(cli, ["kernels", "--arch", "sm_87", "--json"])
    rows = json.loads(found.output)
    assert rows[0]["kernels"][0]["registers"] == REPORT.registers
    assert {r["source"] for r in rows} == set(kernels.VARIANTS)
