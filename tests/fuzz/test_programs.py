"""PyTorch programs: a seed gives one program, right ones pass, a planted bug of an importer is found and reduced."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from effcc.frontend import importer
from effcc.frontend.importer import Importer, aten
from effcc.fuzz.beside import reduce
from effcc.fuzz.eager import to_numpy
from effcc.fuzz.programs.calling import compiled, eager, observe
from effcc.fuzz.programs.campaign import PROGRAMS
from effcc.fuzz.programs.case import Case, Input
from effcc.fuzz.programs.draw import draw
from effcc.fuzz.programs.judge import Failure, difference, judge
from effcc.fuzz.programs.oracle import Disturbed
from effcc.fuzz.programs.script import script
from effcc.fuzz.programs.smaller import smaller
from effcc.ir.graph import Value

FLIP = Case(
    seed=0,
    inputs=(
        Input("x", 'tensor((n, 3), torch.float32, "special", 1)'),
        Input("y", 'tensor((n, 3), torch.float32, "zeros", 3)'),
    ),
    state=(("p0", 'nn.Buffer(tensor((3,), torch.float32, "normal", 2))'),),
    lines=("a = y + self.p0", "self.p0.add_(1)", "b = a.flip(-1)", "y[0] = 2", "c = x.view(-1)"),
    results=("b", "c"),
    calls=((("n", 4),),),
)


@pytest.mark.parametrize("seed", range(0, 60, 6))
def test_a_seed_gives_one_program_which_eager_runs(seed: int) -> None:
    case = draw(seed)
    assert case == draw(seed)
    loaded = case.load()
    first, again = observe(case, loaded, eager), observe(case, loaded, eager)
    assert difference(first, again, []) is None


def test_a_planted_bug_of_an_importer_is_found_and_reduced(monkeypatch: pytest.MonkeyPatch) -> None:
    assert judge(FLIP) == ""

    def forgets(m: Importer, x: Value, dims: Any) -> Value:
        return x

    monkeypatch.setitem(importer.REGISTRY, aten.flip.default, forgets)
    found = judge(FLIP)
    assert isinstance(found, Failure) and found.kind == "bits" and "result 0" in found.message

    def reads_backwards(case: Case) -> Failure | str:
        return replace(found, case=case) if "flip" in case.text and "b" in case.results else ""

    small = reduce(PROGRAMS, found, reads_backwards, 10.0).case
    assert small.lines == ("b = y.flip(-1)",) and small.results == ("b",) and small.state == ()
    names: dict[str, Any] = {"__name__": "written"}
    exec(compile(script(replace(found, case=small)), "script", "exec"), names)
    assert names["inputs"](4)[0].shape == (4, 3)


def test_zeros_that_are_nowhere_in_memory_are_compared_as_zeros() -> None:
    """A gradient that is zero throughout has no elements in eager."""
    lines = ("a = x * y", "b = torch.ops.aten.sgn_.default(a)")
    case = replace(FLIP, lines=lines, results=("b",), mode="training", learned=("y",), way="traced")
    assert judge(case) == ""


def test_complex_numbers_on_the_way_are_compared() -> None:
    """A conjugate is a view in eager, of numbers that are turned where they are read."""
    x = torch.tensor([1.0, -2.0])
    with Disturbed(0):
        turned = (x.to(torch.complex64) * 1j).conj()
    assert to_numpy(turned).tolist() == [-1j, 2j]


def test_a_call_that_eager_refuses_must_be_refused() -> None:
    case = replace(FLIP, lines=("b = x @ y",), results=("b",))
    assert judge(case) == ""
    seen = observe(case, case.load(), eager)
    fitting = observe(replace(case, lines=("b = x + 1",)), replace(case, lines=("b = x + 1",)).load(), eager)
    found = difference(seen, fitting, [])
    assert found is not None and found[0] == "accepts"


def test_results_that_share_memory_are_told_from_copies() -> None:
    case = replace(FLIP, lines=("b = x[1:]", "c = x.clone()"))
    copies = replace(FLIP, lines=("b = x[1:].clone()", "c = x.clone()"))
    found = difference(observe(case, case.load(), eager), observe(case, copies.load(), eager), [])
    assert found is not None and found[0] == "facts" and "shares memory" in found[1]
    assert (
        difference(observe(case, case.load(), eager), observe(case, case.load(), compiled(case, "eager")), []) is None
    )


def test_smaller_programs_are_other_programs() -> None:
    for seed in range(0, 40, 10):
        case = draw(seed)
        assert case not in list(smaller(case))
