"""`effcc compile --target sm_90` prints what every step makes for a GPU, and packs nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from effcc.cli import app
from effcc.errors import UnknownNameError
from effcc.gpu import device_of, machine

runner = CliRunner()

MLP = """
graph @mlp(%x: f32[s0,384], weight %w: f32[1536,384], weight %b: f32[1536]) {
  %h = linear %x, %w, %b : f32[s0,1536]
  %y = gelu %h {approximate="none"} : f32[s0,1536]
  return %y
}
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "mlp.ir"
    path.write_text(MLP)
    return path


def test_the_module_is_printed_after_emit(model: Path) -> None:
    result = runner.invoke(app, ["compile", str(model), "--target", "sm_90", "--print-after", "emit"])
    assert result.exit_code == 0
    printed = result.stdout
    compile(printed, "module", "exec")
    assert "def linear_gelu(x0, w0, w1, gelu, s0):" in printed and "num_stages" in printed


def test_the_blocks_are_printed_after_lower(model: Path) -> None:
    result = runner.invoke(app, ["compile", str(model), "--target", "sm_80", "--print-after", "lower"])
    assert result.exit_code == 0 and "limit s0 - m_0" in result.stdout


def test_a_package_for_a_gpu_is_refused_before_anything_is_written(model: Path, tmp_path: Path) -> None:
    output = tmp_path / "model.effcc"
    result = runner.invoke(app, ["compile", str(model), "--target", "sm_90", "-o", str(output)])
    assert result.exit_code == 2 and not output.exists()
    assert "--print-after emit" in result.output


def test_machines_are_cpus_and_gpus_by_name() -> None:
    device = device_of(machine("gfx942"))
    assert device is not None and device.warp == 64
    assert device_of(machine("avx2")) is None
    with pytest.raises(UnknownNameError, match="did you mean 'sm_90'"):
        machine("sm90")
