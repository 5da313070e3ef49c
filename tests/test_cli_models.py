"""Commands that take a model: compile, run, explain; what they print, and what they say of bad input."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from typer.testing import CliRunner

from effcc.cli import app
from effcc.errors import CaptureError

runner = CliRunner()


class Attention(nn.Module):
    """One head, with a projection."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.project = nn.Linear(16, 48)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.project(x).chunk(3, -1)
        return torch.softmax(q @ k.transpose(-1, -2) / 4.0, -1) @ v


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`model.pt2`, `model.effcc` and `inputs.safetensors` of `Attention`."""
    made = tmp_path_factory.mktemp("models")
    x = torch.randn(12, 16)
    torch.export.save(torch.export.export(Attention().eval(), (x,)), made / "model.pt2")
    save_file({"x": x}, made / "inputs.safetensors")
    result = runner.invoke(app, ["compile", str(made / "model.pt2")])
    assert result.exit_code == 0, result.output
    return made


def test_compile_and_run_give_what_eager_gives(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "outputs.safetensors"
    arguments = ["run", str(folder / "model.effcc"), str(folder / "inputs.safetensors"), "-o", str(output), "--json"]
    result = runner.invoke(app, [*arguments, "--repeat", "3"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["repeat"] == 3
    assert found["median_seconds"] > 0
    ((name, y),) = load_file(output).items()
    assert found["outputs"][name]["shape"] == [12, 16]
    torch.testing.assert_close(y, Attention()(load_file(folder / "inputs.safetensors")["x"]).detach())
    assert "12, 16" in runner.invoke(app, arguments[:-1]).stdout


def test_compile_prints_steps_and_goes_on_from_them(folder: Path, tmp_path: Path) -> None:
    printed = runner.invoke(app, ["compile", str(folder / "model.pt2"), "--print-after", "fuse"])
    assert printed.exit_code == 0, printed.output
    assert printed.stdout.startswith("program @main")
    path = tmp_path / "fused.ir"
    path.write_text(printed.stdout)
    result = runner.invoke(app, ["compile", str(path), "--from", "fuse", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["output"] == str(tmp_path / "fused.effcc")
    assert (tmp_path / "fused.effcc").is_file()


def test_explain_tells_kernels_schedules_times_memory_and_calls_to_pytorch(folder: Path) -> None:
    result = runner.invoke(app, ["explain", str(folder / "model.pt2"), "--json"])
    assert result.exit_code == 0, result.output
    (program,) = json.loads(result.stdout)["programs"]
    assert program["externs"] == []
    assert program["memory"]["arena"] >= program["memory"]["bound"]
    kernels = program["kernels"]
    assert kernels and all(k["measured"] > 0 and k["roofline"] > 0 and k["flops"] > 0 for k in kernels)
    assert any("softmax" in k["location"] for k in kernels)
    assert all(k["notes"] for k in kernels)
    projection = next(k for k in kernels if "project" in k["location"] and "softmax" not in k["location"])
    assert projection["flops"] >= 2 * 12 * 16 * 48


def test_explain_prints_text_with_and_without_source_and_times(folder: Path) -> None:
    arguments = ["explain", str(folder / "model.pt2"), "--no-measure"]
    plain = runner.invoke(app, arguments)
    assert plain.exit_code == 0, plain.output
    for expected in ("schedule:", "run by PyTorch: nothing", "live-range lower bound", "from:", "compile time:"):
        assert expected in plain.stdout
    assert 'extern "C"' not in plain.stdout
    assert 'extern "C" int effcc_run' in runner.invoke(app, [*arguments, "--source"]).stdout


def test_explain_lists_calls_to_pytorch_with_their_reason(tmp_path: Path) -> None:
    class Sorting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.sort(x * 2.0, dim=-1).values + 1.0

    path = tmp_path / "model.pt2"
    torch.export.save(torch.export.export(Sorting(), (torch.zeros(3, 4),)), path)
    result = runner.invoke(app, ["explain", str(path), "--json"])
    (program,) = json.loads(result.stdout)["programs"]
    (call,) = program["externs"]
    assert call["operator"].startswith("aten::sort")
    assert call["reason"] == "sorting is not a cascade" and call["measured"] > 0
    refused = runner.invoke(app, ["compile", str(path)])
    assert refused.exit_code == 2
    assert "aten::sort" in refused.stderr
    assert not (tmp_path / "model.effcc").exists()


BAD: dict[str, tuple[list[str], str]] = {
    "no such file": (["compile", "nothing.pt2"], "found no such file"),
    "not a pt2": (["compile", "text.pt2"], "written by torch.export.save"),
    "an archive of something else": (["compile", "zip.pt2"], "a zip archive, but torch.export.load"),
    "a package": (["compile", "good.effcc"], "got a compiled package"),
    "a folder": (["compile", "."], "found a folder"),
    "an encoding that does not fit": (["compile", "encoding.ir"], "%w: block(4,1) needs rows in multiples of 4"),
    "an unknown encoding": (["compile", "scheme.ir"], "did you mean 'int8'"),
    "an output that is something else": (["compile", "good.ir", "-o", "text.pt2"], "exists and is no package"),
    "a syntax error": (["compile", "syntax.ir"], "syntax.ir:2:"),
    "a type error": (["compile", "types.ir"], "types.ir:2:"),
    "an unknown op": (["compile", "op.ir"], "did you mean 'exp'"),
    "an unknown step": (["compile", "good.ir", "--print-after", "fus"], "did you mean 'fuse'"),
    "an unknown step to go on from": (["compile", "good.ir", "--from", "hoists"], "did you mean 'hoist'"),
    "an unknown target": (["compile", "good.ir", "--target", "axv2"], "did you mean 'avx2'"),
    "an unknown option": (["compile", "good.ir", "--print-aftr", "fuse"], "--print-after"),
    "no folder for the output": (["compile", "good.ir", "-o", "no/where.effcc"], "there is no folder"),
    "explain of no model": (["explain", "text.pt2"], "written by torch.export.save"),
    "run of no package": (["run", "text.pt2", "inputs.safetensors"], "expected a package"),
    "run on no inputs": (["run", "good.effcc", "nothing.safetensors"], "there is no such file"),
    "run on a file of another kind": (["run", "good.effcc", "text.pt2"], "cannot be read"),
    "run on other inputs": (["run", "good.effcc", "inputs.safetensors"], "'x' is missing"),
    "run into its inputs": (["run", "good.effcc", "size.safetensors", "-o", "size.safetensors"], "would overwrite"),
    "run on inputs of another size": (["run", "good.effcc", "size.safetensors"], "expected f32[3], got float32[4]"),
}


@pytest.fixture(scope="module")
def bad_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good graph and its package, and files that are wrong each in its own way."""
    made = tmp_path_factory.mktemp("bad")
    good = "graph @main(%x: f32[3]) {\n  %y = exp %x : f32[3]\n  return %y\n}\n"
    (made / "good.ir").write_text(good)
    (made / "syntax.ir").write_text(good.replace("= exp", "exp"))
    (made / "types.ir").write_text(good.replace("%x : f32[3]", "%x : f32[4]"))
    (made / "op.ir").write_text(good.replace("exp", "expp"))
    stored = "graph @main(%w: f32[9,4] = block(4,1)) {\n  %y = exp %w : f32[9,4]\n  return %y\n}\n"
    (made / "encoding.ir").write_text(stored)
    (made / "scheme.ir").write_text(stored.replace("block(4,1)", "int9"))
    (made / "text.pt2").write_text("not an archive")
    with zipfile.ZipFile(made / "zip.pt2", "w") as archive:
        archive.writestr("a/b", "c")
    save_file({"z": torch.zeros(3)}, made / "inputs.safetensors")
    save_file({"x": torch.zeros(4)}, made / "size.safetensors")
    result = runner.invoke(app, ["compile", str(made / "good.ir")])
    assert result.exit_code == 0, result.output
    return made


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_a_message_and_exit_code_2_and_leaves_no_file(
    case: str, bad_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bad_files)
    before = sorted(bad_files.iterdir())
    arguments, message = BAD[case]
    result = runner.invoke(app, arguments)
    assert result.exit_code == 2
    assert message in result.stderr.replace("\n", " ")
    assert "Traceback" not in result.output
    assert result.stdout == ""
    assert sorted(bad_files.iterdir()) == before


def test_debug_shows_the_traceback(bad_files: Path) -> None:
    result = runner.invoke(app, ["--debug", "compile", str(bad_files / "text.pt2")])
    assert isinstance(result.exception, CaptureError)


def test_the_offending_line_is_shown_with_a_caret(bad_files: Path) -> None:
    stderr = runner.invoke(app, ["compile", str(bad_files / "op.ir")]).stderr
    line, caret = stderr.splitlines()[-2:]
    assert line.strip() == "%y = expp %x : f32[3]"
    assert caret.strip() == "^"
