"""A part of PyTorch's operator database through `torch.compile(backend="effcc")`; `benchmarks.op_database` runs all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.op_database import report
from benchmarks.op_database.calls import Call, calls, operators
from benchmarks.op_database.outcome import RIGHT, Outcome, outcome, outcomes
from benchmarks.op_database.report import worst
from benchmarks.op_database.workers import Task, run


@pytest.fixture(autouse=True, scope="module")
def _no_test_on_the_stack() -> Iterator[None]:
    """Let PyTorch's database not look for its own `TestCase` on the stack, source lines and all, at every sample."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (torch.testing._internal.common_utils, torch.testing._internal.opinfo.core):
            patch.setattr(module, "extract_test_fn", lambda: None)
        yield


NATIVE = (
    "add", "div:floor_rounding", "remainder", "pow", "where", "logaddexp", "erf", "nan_to_num", "sum", "std_mean",
    "fmax", "angle", "dist", "signbit", "round:decimals_3",
    "logsumexp", "argmax", "cumsum", "aminmax", "matmul", "addmm", "einsum", "cat", "diff", "as_strided", "tril",
    "gather", "index_put", "scatter_add", "nn.functional.pad:reflect", "nn.functional.conv2d", "clone",
    "nn.functional.layer_norm", "nn.functional.cross_entropy",
)  # fmt: skip

EXTERN = ("sort", "median", "linalg.inv", "fft.rfft", "randn", "masked_select", "nonzero", "unique")

OTHERS = (
    ("mul", "plain", "int64"), ("floor_divide", "plain", "int64"), ("amax", "plain", "bool"), ("sum", "plain", "bool"),
    ("scatter_add", "plain", "bool"),
    ("softmax", "plain", "bfloat16"), ("nn.functional.gelu", "plain", "bfloat16"), ("var", "plain", "float64"),
    ("addcmul", "inplace", "float32"), ("masked_fill", "inplace", "float32"), ("cumprod", "inplace", "float32"),
    ("add", "out", "float32"), ("mm", "out", "float32"), ("gather", "error", "float32"), ("cat", "error", "float32"),
    ("sub", "dynamic", "float32"), ("nn.functional.conv2d", "dynamic", "float32"), ("mul", "inference", "float32"),
    ("dist", "dynamic", "float32"), ("fmax", "plain", "int16"), ("add", "plain", "complex64"),
    ("var_mean", "plain", "complex64"),
    ("softmax", "gradient", "float32"), ("nn.functional.conv1d", "gradient", "float32"),
)  # fmt: skip


def first(name: str, kind: str = "plain", dtype: str = "float32") -> Outcome:
    (call,) = calls(operators()[name], kind, dtype, limit=1)
    return outcome(call)


@pytest.mark.parametrize("name", NATIVE)
def test_operators_that_kernels_compute(name: str) -> None:
    found = first(name)
    assert found.status == "native", found


@pytest.mark.parametrize("name", ["nn.functional.hardshrink", "nn.functional.softshrink"])
def test_gradients_that_kernels_compute(name: str) -> None:
    found = first(name, "gradient")
    assert found.status == "native", found


@pytest.mark.parametrize("name", EXTERN)
def test_operators_that_pytorch_runs(name: str) -> None:
    found = first(name)
    assert found.status == "extern" and found.externs, found


@pytest.mark.parametrize(("name", "kind", "dtype"), OTHERS)
def test_other_dtypes_and_ways_to_call(name: str, kind: str, dtype: str) -> None:
    found = first(name, kind, dtype)
    assert found.status in RIGHT, found


def test_samples_are_the_same_every_time_and_unlike_each_other() -> None:
    made, again = (calls(operators()["sum"], "plain", "float32", limit=4) for _ in range(2))
    assert [str(c) for c in made] == [str(c) for c in again]
    assert len({str(c) for c in made}) == 4
    torch.testing.assert_close([c.args[0] for c in made], [c.args[0] for c in again])
    assert any(not c.args[0].is_contiguous() for c in made)


def wrong_values(x: Tensor) -> Tensor:
    return x + 2 if torch.compiler.is_compiling() else x + 1


def wrong_strides(x: Tensor) -> Tensor:
    return (x + 1).t().contiguous().t() if torch.compiler.is_compiling() else x + 1


def wrong_dtype(x: Tensor) -> Tensor:
    return (x + 1).double() if torch.compiler.is_compiling() else x + 1


def wrong_alias(x: Tensor) -> Tensor:
    return x if torch.compiler.is_compiling() else x.clone()


def wrong_write(x: Tensor) -> Tensor:
    return (x.mul_(2) if torch.compiler.is_compiling() else x * 2).sum()


def missing_error(x: Tensor) -> Tensor:
    if not torch.compiler.is_compiling():
        raise ValueError("refused")
    return x + 1


PLANTED: dict[Callable[[Tensor], Tensor], str] = {
    wrong_values: "values", wrong_strides: "layout", wrong_dtype: "layout", wrong_alias: "layout",
    wrong_write: "values", missing_error: "error",
}  # fmt: skip


@pytest.mark.parametrize("function", list(PLANTED))
def test_planted_differences_are_found(function: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    # Capture alone differs from eager in the same way, which would excuse effcc.
    monkeypatch.setattr("benchmarks.op_database.outcome._torchs_own", lambda *_: False)
    kind = "error" if function is missing_error else "plain"
    found = outcome(Call(function.__name__, kind, "float32", 0, function, (torch.arange(6.0).view(2, 3),), {}))
    assert found.status == PLANTED[function], found


def test_what_capture_alone_gets_wrong_is_told_apart() -> None:
    found = outcome(Call("wrong_values", "plain", "float32", 0, wrong_values, (torch.ones(3),), {}))
    assert found.status == "capture", found


def test_calls_compiled_together_are_judged_one_by_one_where_one_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.op_database.outcome._torchs_own", lambda *_: False)
    x = torch.arange(6.0).view(2, 3)
    made = [Call(f.__name__, "plain", "float32", 0, f, (x,), {}) for f in (torch.neg, wrong_values, torch.abs)]
    assert [o.status for o in outcomes(made)] == ["native", "values", "native"]
    assert [o.status for o in outcomes(made[::2])] == ["native", "native"]


@pytest.mark.parametrize("kind", ["plain", "gradient"])
def test_of_calls_compiled_together_each_has_its_own_externs(kind: str) -> None:
    x = torch.arange(6.0).view(2, 3).requires_grad_(kind == "gradient")
    made = [
        Call(f.__name__, kind, "float32", 0, f, (x,), {}) for f in (torch.neg, torch.sort, torch.digamma, torch.abs)
    ]
    found = list(outcomes(made))
    assert [o.status for o in found] == ["native", "extern", "extern", "native"]
    assert "aten::sort.default" in found[1].externs and "aten::digamma.default" in found[2].externs
    assert not set(found[1].externs) & set(found[2].externs)


def test_calls_that_eager_refuses_are_skipped_among_others() -> None:
    x = torch.ones(2, 3)
    made = [Call("op", "plain", "float32", 0, f, (x,), {}) for f in (torch.neg, torch.inverse, torch.abs)]
    assert [o.status for o in outcomes(made)] == ["native", "skipped", "native"]


def test_a_call_in_several_graphs_is_told_apart() -> None:
    x = torch.ones(2, 3)
    (found,) = outcomes([Call("equal", "plain", "float32", 0, torch.equal, (x, x), {})])
    assert (found.status, "data-dependent" in found.detail or "Data dependent" in found.detail) == ("broken", True)


def test_all_samples_are_more_than_those_chosen() -> None:
    assert len(calls(operators()["sum"], "plain", "float32", limit=0)) > 4


def test_what_was_done_is_read_again_but_for_a_line_that_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "done.jsonl"
    first, second = Task("neg", "plain", "float32", 2), Task("abs", "plain", "float32", 2)
    found = [Outcome("neg #0", "native"), Outcome("neg #1", "extern", "", ("aten::neg.default",))]
    path.write_text(report.line(first, found) + report.line(second, found)[:-9])
    assert report.read(path) == {first: found}


def test_the_table_has_a_row_for_each_operator() -> None:
    found = {
        Task("neg", "plain", "float32", 2): [Outcome("neg #0", "native")],
        Task("neg", "gradient", "float32", 2): [Outcome("neg #0", "values"), Outcome("neg #1", "native")],
        Task("sort", "plain", "float32", 2): [Outcome("sort #0", "extern", "", ("aten::sort.default",))],
    }
    assert report.table(found).splitlines() == [
        "| operator | plain float32 | gradient float32 |",
        "|---|---|---|",
        "| neg | n | VALUES |",
        "| sort | e |   |",
    ]
    assert report.reasons(found) == "    1 aten::sort.default"


def test_an_operator_is_what_its_worst_call_is() -> None:
    statuses = ("native", "extern", "values", "refused")
    assert worst([Outcome("call", status) for status in statuses]) == "values"
    assert worst([]) == "skipped"


@pytest.mark.slow
def test_a_call_that_takes_too_long_is_a_crash_and_the_next_goes_on() -> None:
    tasks = [Task("svd_lowrank", "plain", "float32", 1), Task("neg", "plain", "float32", 1)]
    found: Any = {task.name: outcomes for task, outcomes in run(tasks[:1], timeout=0.01)}
    assert [o.status for o in found["svd_lowrank"]] == ["crash"]
    found = {task.name: outcomes for task, outcomes in run(tasks[1:], timeout=300)}
    assert [o.status for o in found["neg"]] == ["native"]


@pytest.mark.slow
def test_tasks_share_programs_and_keep_their_outcomes() -> None:
    tasks = [Task(name, "plain", "float32", 2) for name in ("neg", "sort", "no such operator", "abs")]
    found = {task.name: [o.status for o in outcomes] for task, outcomes in run(tasks, timeout=300, together=8)}
    assert found == {
        "neg": ["native"] * 2,
        "sort": ["extern"] * 2,
        "no such operator": ["skipped"],
        "abs": ["native"] * 2,
    }
