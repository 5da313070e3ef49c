"""What effcc has no form for, or fails to compile, runs in PyTorch: right results, and `explain` says why."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from effcc import export, steps
from effcc.errors import FaultWarning, ToolchainError, UnsupportedError, noting
from effcc.explanation import Explanation, explain
from effcc.frontend.importer import REGISTRY
from effcc.ir.printer import print_kernel


@torch.library.custom_op("effcc_tests::add_to", mutates_args=("a",))
def add_to(a: Tensor, b: Tensor) -> None:
    a.add_(b)


@torch.library.custom_op("effcc_tests::described", mutates_args=())
def described(a: Tensor, how: str, by: float | None) -> tuple[Tensor, list[Tensor]]:
    return a * (by or 2.0), [a.to(torch.complex32), a + len(how)]


@described.register_fake
def _(a: Tensor, how: str, by: float | None) -> tuple[Tensor, list[Tensor]]:
    return torch.empty_like(a), [torch.empty_like(a, dtype=torch.complex32), torch.empty_like(a)]


def writes_an_intermediate(x: Tensor) -> Tensor:
    y = x * 2
    add_to(y, x)
    return y + 1


def writes_its_input(x: Tensor) -> Tensor:
    before = x[1:] * 3
    add_to(x, x * 2)
    return before + x[1:]


def lists_within_results(x: Tensor) -> Tensor:
    scaled, (other, moved) = described(x + 1, "abc", None)
    return scaled + other.to(torch.complex64).real + moved * 2


def quantized(x: Tensor) -> Tensor:
    return torch.quantize_per_tensor(x + 1, 0.1, 0, torch.quint8).relu().dequantize() * 2


def view_of_what_is_written(x: Tensor) -> Tensor:
    bits = x.to(torch.complex32).real.float()
    x.mul_(2)
    return bits + x


MODELS: dict[str, Callable[[Tensor], Any]] = {
    "writes_an_intermediate": writes_an_intermediate,
    "writes_its_input": writes_its_input,
    "lists_within_results": lists_within_results,
    "half_complex": lambda x: (x + 1).to(torch.complex32).to(torch.complex64).abs() * 2,
    "quantized": quantized,
    "view_of_what_is_written": view_of_what_is_written,
    "halves_of_numbers": lambda x: torch.fft.irfft(torch.fft.rfft(x * 2) * torch.fft.rfft(x + 1)) + 1,
}


def both(function: Callable[..., Any], *inputs: Tensor, **options: Any) -> tuple[Any, Explanation]:
    """Checks a function against eager, results and what it writes; the compiled result and its explanation."""
    torch._dynamo.reset()
    compiled = torch.compile(function, backend="effcc", fullgraph=True, **options)
    mine, theirs = ([t.clone() for t in inputs] for _ in range(2))
    with torch.no_grad():
        expected, got = function(*theirs), compiled(*mine)
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(mine, theirs)
    return compiled, explain(compiled, measure=False)


@pytest.mark.parametrize("name", list(MODELS))
def test_without_a_form(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", FaultWarning)
        _, explanation = both(MODELS[name], torch.randn(4, 8, generator=torch.Generator().manual_seed(0)))
    assert any(call.reason for program in explanation.programs for call in program.externs)


def two_lines(x: Tensor) -> tuple[Tensor, Tensor]:
    first = torch.exp(x)
    second = torch.tanh(x @ x.t()) + 1
    return first, second


Step = Callable[[steps.State, Any], steps.State]


def fails_at_exponentials(step: Step) -> Step:
    """A step with a planted fault, which says where it was, as the steps do."""

    def broken(state: steps.State, target: Any) -> steps.State:
        kernels = state.program.kernels.values() if state.program is not None else ()
        places = [k.location for k in kernels if "exp(" in print_kernel(k)]
        nodes = state.graph.nodes if state.graph is not None and state.program is None else ()
        places += [n.location for n in nodes if n.op == "exp"]
        for place in places:
            with noting(location=place):
                raise AssertionError("planted")
        return step(state, target)

    return broken


def fails_always(step: Step) -> Step:
    def broken(state: steps.State, target: Any) -> steps.State:
        raise RecursionError("planted")

    return broken


def refused_by_the_compiler(step: Step) -> Step:
    """Emits a kernel with an exponential that no compiler takes."""

    def broken(state: steps.State, target: Any) -> steps.State:
        made = step(state, target)
        kernels = tuple(
            dataclasses.replace(unit, text=f"int planted = nonsense;\n{unit.text}") if "exp(" in unit.text else unit
            for unit in made.source.kernels
        )
        return dataclasses.replace(made, source=dataclasses.replace(made.source, kernels=kernels))

    return broken


def check_reported(monkeypatch: pytest.MonkeyPatch, kernels: bool) -> None:
    with pytest.warns(FaultWarning, match="please send") as warned:
        _, explanation = both(two_lines, torch.randn(4, 8))
    assert any(p.kernels for p in explanation.programs) == kernels
    calls = [c for p in explanation.programs for c in p.externs]
    assert {c.operator for c in calls} >= {"aten::exp.default"}
    assert all("fault of effcc" in c.reason for c in calls)
    file = Path(str(warned[0].message).split("please send ")[1])
    text = file.read_text()
    assert "=== error ===" in text and "exp" in text
    file.unlink()


@pytest.mark.parametrize("step", list(steps.STEPS))
def test_a_fault_of_any_step(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(steps.STEPS, step, fails_at_exponentials(steps.STEPS[step]))
    check_reported(monkeypatch, kernels=True)


def test_a_fault_of_nobody_knows_what(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(steps.STEPS, "tile", fails_always(steps.STEPS["tile"]))
    check_reported(monkeypatch, kernels=False)


def test_a_fault_of_an_importer(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise KeyError("planted")

    monkeypatch.setitem(REGISTRY, torch.ops.aten.exp.default, broken)
    check_reported(monkeypatch, kernels=True)


def test_a_kernel_that_the_compiler_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(steps.STEPS, "emit", refused_by_the_compiler(steps.STEPS["emit"]))
    check_reported(monkeypatch, kernels=True)


def test_in_training(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The backward half too."""
    monkeypatch.setenv("EFFCC_CACHE_DIR", str(tmp_path))
    monkeypatch.setitem(steps.STEPS, "emit", refused_by_the_compiler(steps.STEPS["emit"]))
    torch._dynamo.reset()
    x, y = (torch.linspace(-1, 1, 32).reshape(4, 8).requires_grad_() for _ in range(2))
    with pytest.warns(FaultWarning):
        sum(t.sum() for t in torch.compile(two_lines, backend="effcc")(x)).backward()
    sum(t.sum() for t in two_lines(y)).backward()
    torch.testing.assert_close(x.grad, y.grad)


def test_a_limitation_is_listed_without_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def limited(*_: Any) -> None:
        raise UnsupportedError("no exponentials on Thursdays")

    monkeypatch.setitem(REGISTRY, torch.ops.aten.exp.default, limited)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FaultWarning)
        _, explanation = both(two_lines, torch.randn(4, 8))
    assert [c.reason for p in explanation.programs for c in p.externs] == ["no exponentials on Thursdays"]


@pytest.mark.parametrize("planted", [fails_always, refused_by_the_compiler])
def test_a_package_is_refused_with_a_file_to_send(
    planted: Callable[[Step], Step], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Model(torch.nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return two_lines(x)

    monkeypatch.setitem(steps.STEPS, "emit", planted(steps.STEPS["emit"]))
    with pytest.raises(UnsupportedError, match=r"please send (\S+)\. Under") as caught:
        export(Model(), (torch.randn(4, 8),), tmp_path / "model.effcc")
    file = Path(str(caught.value).split("please send ")[1].split(". Under")[0])
    assert "=== error ===" in file.read_text()
    file.unlink()


@pytest.mark.parametrize("command", ["false", "true", "no-such-compiler", "g++ --no-such-flag"])
def test_a_broken_compiler_is_not_effccs(command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", command)
    monkeypatch.setenv("EFFCC_CACHE_DIR", str(tmp_path))
    torch._dynamo.reset()
    with pytest.raises(ToolchainError), torch.no_grad():
        torch.compile(two_lines, backend="effcc")(torch.randn(4, 8))
