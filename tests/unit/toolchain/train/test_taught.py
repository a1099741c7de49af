"""The distance to a finished network's output, and training that shrinks it."""

import pytest

torch = pytest.importorskip("torch")

from edgecount.toolchain.train.taught import output_distance  # noqa: E402


def test_equal_outputs_are_no_distance_apart():
    torch.manual_seed(0)
    output = torch.rand(2, 5, 64 + 16 + 4) * 4
    assert float(output_distance(output, output, (64, 64), 3.0)) == pytest.approx(0, abs=1e-4)
    moved = output.clone()
    moved[:, 4] += 2
    assert float(output_distance(moved, output, (64, 64), 3.0)) > 0.1
