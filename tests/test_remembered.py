"""What steps made of a graph is taken from the cache by whoever compiles it again, if it is whole."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import effcc
from effcc.backend import programs_of
from effcc.driver import Compiled
from effcc.ir.encodings import registry
from effcc.ir.parser import parse_graph
from effcc.remembered import key_of
from effcc.runtime.cache import CompileCache
from effcc.target import Target

TARGET = Target.parse("avx2")


@pytest.fixture(autouse=True)
def _remembering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EFFCC_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("EFFCC_REMEMBER", "1")


def _compiled(model: nn.Module, x: Tensor, **options: Any) -> tuple[Compiled, Tensor]:
    """The program of a model that is compiled as if it were the first of this process, and its result."""
    torch._dynamo.reset()
    run: Callable[..., Tensor] = torch.compile(model, backend="effcc", **options)
    with torch.no_grad():
        result = run(x)
    return programs_of(run)[-1], result


def _recalled(program: Compiled) -> bool:
    return "simplify" not in program.state.seconds


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(24, 40), nn.GELU(), nn.Linear(40, 8)).eval()


def _stored() -> nn.Module:
    model = _mlp()
    effcc.quantize(model, "int4(group=8)")
    return model


class _Sized(nn.Module):
    """A draw, an operator of PyTorch's, and a size that is known at run time."""

    def forward(self, x: Tensor) -> Tensor:
        return (x + torch.rand_like(x).sort(-1).values * 0).softmax(-1) * x.shape[0]


@pytest.mark.parametrize("make", [_mlp, _stored, _Sized])
@pytest.mark.parametrize("dynamic", [False, True])
def test_the_same_graph_is_not_put_through_the_steps_again(make: Callable[[], nn.Module], dynamic: bool) -> None:
    model, x = make(), torch.randn(6, 24)
    first, expected = _compiled(model, x, dynamic=dynamic)
    again, result = _compiled(model, x, dynamic=dynamic)
    assert not _recalled(first)
    assert _recalled(again)
    assert str(again.state.source) == str(first.state.source)
    assert torch.equal(result, expected)
    torch.testing.assert_close(result, model(x))


def test_reports_say_of_remembered_programs_what_they_say_of_new_ones() -> None:
    model, x = _mlp(), torch.randn(6, 24)
    reports = []
    for _ in range(2):
        torch._dynamo.reset()
        run = torch.compile(model, backend="effcc")
        with torch.no_grad():
            run(x)
        reports.append(effcc.explain(run, measure=False).as_json()["programs"][-1])
        del reports[-1]["seconds"]
    assert reports[0] == reports[1]


def test_a_remembered_program_can_be_traced() -> None:
    model, x = _mlp(), torch.randn(6, 24)
    for _ in range(2):
        torch._dynamo.reset()
        run = torch.compile(model, backend="effcc")
        with torch.no_grad():
            run(x)
    explained = effcc.explain(run, trace=True)
    assert any(tick.kind == "kernel" for program in explained.programs for tick in program.ticks)


def test_another_option_or_another_constant_is_another_program() -> None:
    model, x = _mlp(), torch.randn(6, 24)
    _compiled(model, x)
    assert not _recalled(_compiled(model, x, options={"fast_math": True})[0])
    model[1] = nn.GELU(approximate="tanh")
    assert not _recalled(_compiled(model, x)[0])


@pytest.mark.parametrize("name", ["EFFCC_REMEMBER", "EFFCC_VERIFY"])
def test_steps_run_again_where_the_environment_asks_for_them(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = _mlp(), torch.randn(6, 24)
    _compiled(model, x)
    monkeypatch.setenv(name, "0" if name == "EFFCC_REMEMBER" else "1")
    assert not _recalled(_compiled(model, x)[0])


def test_steps_run_again_for_whoever_looks_at_them(capsys: pytest.CaptureFixture[str]) -> None:
    model, x = _mlp(), torch.randn(6, 24)
    _compiled(model, x)
    _compiled(model, x, options={"print_after": "fuse"})
    assert "kernel @" in capsys.readouterr().err


def test_a_damaged_program_is_made_again(tmp_path: Path) -> None:
    model, x = _mlp(), torch.randn(6, 24)
    _, expected = _compiled(model, x)
    (file,) = [e.file for e in CompileCache.default().entries() if e.kind == "program"]
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    program, result = _compiled(model, x)
    assert not _recalled(program)
    assert torch.equal(result, expected)
    assert _recalled(_compiled(model, x)[0])


def test_a_program_that_others_could_have_written_is_not_read() -> None:
    model, x = _mlp(), torch.randn(6, 24)
    _compiled(model, x)
    (file,) = [e.file for e in CompileCache.default().entries() if e.kind == "program"]
    file.chmod(0o666)
    assert not _recalled(_compiled(model, x)[0])


GRAPH = """graph @main(%x: f32[s0,4], weight %w: f32[4,4], weight %a: f32[4], weight %b: f32[4]) where s0 in 2..64 {
  %h = add %x, %a : f32[s0,4]
  %y = add %h, %b : f32[s0,4]
  return %y
}
"""


def test_a_graph_has_one_key_in_all_processes() -> None:
    code = f"""if 1:
        from effcc.ir.parser import parse_graph
        from effcc.remembered import key_of
        from effcc.target import Target
        print(key_of(parse_graph({GRAPH!r}), Target.parse("avx2"), fast_math=False))"""
    environment = os.environ | {"PYTHONHASHSEED": "77"}
    told = subprocess.run([sys.executable, "-c", code], env=environment, check=True, stdout=subprocess.PIPE, text=True)
    assert told.stdout.strip() == key_of(parse_graph(GRAPH), TARGET, fast_math=False)


@pytest.mark.parametrize("change", [("s0 in 2", "s0 in 3"), ("weight %b", "%b"), ("%h, %b", "%h, %a")])
def test_what_steps_read_is_in_the_key(change: tuple[str, str]) -> None:
    other = parse_graph(GRAPH.replace(*change))
    assert key_of(other, TARGET, fast_math=False) != key_of(parse_graph(GRAPH), TARGET, fast_math=False)


def test_programs_are_not_remembered_where_others_than_effcc_declared_an_encoding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What such an encoding makes of a weight is in no digest, so yesterday's program may be of another one."""
    assert registry.foreign() == ()
    theirs = replace(registry.declared("int8"), name="int8_of_theirs", make=lambda **given: None)
    monkeypatch.setitem(registry.DECLARATIONS, theirs.name, theirs)
    assert registry.foreign() == ("int8_of_theirs",)
    _compiled(_mlp(), torch.ones(2, 24))
    assert not _recalled(_compiled(_mlp(), torch.ones(2, 24))[0])
