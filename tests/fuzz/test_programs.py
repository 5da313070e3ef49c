"""PyTorch programs: a seed gives one program, right ones pass, a planted bug of an importer is found and reduced."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch._higher_order_ops import while_loop

from effcc.frontend import importer
from effcc.frontend.importer import Importer, aten
from effcc.fuzz.beside import reduce
from effcc.fuzz.eager import to_numpy
from effcc.fuzz.programs import traced
from effcc.fuzz.programs.calling import Seen, compiled, eager, observe
from effcc.fuzz.programs.campaign import PROGRAMS
from effcc.fuzz.programs.case import Case, Input
from effcc.fuzz.programs.draw import UNWRITTEN, draw
from effcc.fuzz.programs.judge import Failure, difference, judge
from effcc.fuzz.programs.oracle import Disturbed
from effcc.fuzz.programs.plainly import plain_control_flow
from effcc.fuzz.programs.script import script
from effcc.fuzz.programs.smaller import smaller
from effcc.fuzz.programs.traced import Traced
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


def test_other_calls_of_a_traced_program_run_its_one_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = tuple((("n", n),) for n in (7, 5, 3, 0))
    case = replace(FLIP, lines=("b = x[-5:] * 2",), results=("b",), calls=calls, dynamic=True, way="traced")
    loaded = case.load()
    trace = Traced(case, loaded).traced_at_sizes()
    again = Traced(case, loaded, 1)
    assert again.in_eager() and again.at_sizes(trace), "as many as are sliced: what tracing took for granted holds"
    assert judge(case) == ""

    fixed = replace(case, lines=("b = x * 2 if x.shape[0] == 7 else x",))
    other = Traced(fixed, fixed.load(), 1)
    assert other.at_sizes(Traced(fixed, fixed.load()).traced_at_sizes()) is None, "the trace holds for 7 alone"

    def as_many_as_first(given: list[torch.Tensor]) -> list[torch.Tensor]:
        return [2 * given[1][-min(7, len(given[1])) :], *given]

    monkeypatch.setattr(traced, "interpret_captured", lambda module: as_many_as_first)
    found = judge(case)
    assert isinstance(found, Failure) and "call 1 at {'n': 7}" in found.message and found.kind == "shapes"


def test_a_convolution_with_a_kernel_of_run_time_size_is_no_fault() -> None:
    line = "b = F.conv1d(x[None], x[None], padding='same')"
    given = (Input("x", 'tensor((n, n + 1), torch.float32, "normal", 1)'),)
    case = replace(FLIP, inputs=given, lines=(line,), results=("b",), state=(), dynamic=True, way="interpreted")
    assert judge(replace(case, calls=((("n", 4),), (("n", 6),)))) == ""


def test_branches_and_loops_in_eager_go_without_dynamo(monkeypatch: pytest.MonkeyPatch) -> None:
    x, seen = torch.tensor([1.0, 2.0]), []
    monkeypatch.setattr(torch, "compile", lambda *a, **k: seen.append(a))
    with plain_control_flow():
        assert torch.cond(x.sum() > 2, lambda a: a + 1, lambda a: a - 1, (x,)).tolist() == [2.0, 3.0]
        assert while_loop(lambda a: a.sum() < 9, lambda a: (a * 2,), (x,))[0].tolist() == [4.0, 8.0]
        with pytest.raises(RuntimeError, match="same types"):
            torch.cond(x.sum() > 2, lambda a: a + 1, lambda a: a[:1] - 1, (x,))
    assert not seen


@pytest.mark.parametrize(
    ("line", "numbers"),
    [
        ("b = F.layer_norm(x.half(), (3,), p, p, eps=1e-12)", "flat"),  # f32's own roundings, a million times
        (
            "b = x.half().clamp_min(0.0)",
            "zeros",
        ),  # of either sign, which eager's vectors and scalars choose differently
    ],
)
def test_what_eager_leaves_open_is_told(line: str, numbers: str) -> None:
    given = (Input("x", f'tensor((n, 3), torch.float32, "{numbers}", 1)'),)
    state = (("p0", 'nn.Buffer(tensor((3,), torch.float16, "normal", 50))'),)
    case = replace(FLIP, inputs=given, state=state, lines=(line.replace("p,", "self.p0,"),), results=("b",))
    loaded = case.load()
    expected = observe(case, loaded, eager)
    trials = [observe(case, loaded, eager, Disturbed(seed)) for seed in range(5)]
    first = expected[0]
    assert isinstance(first, Seen) and trials[0][0].inexact
    p, x = loaded.Program().p0.double(), loaded.inputs(4)[0].half().double()
    one = -first.value if numbers == "zeros" else F.layer_norm(x, (3,), p, p, eps=1e-12).half()
    assert difference([first], [replace(first, value=one)], [t[:1] for t in trials]) is None
    assert difference([first], [replace(first, value=first.value + 1)], [t[:1] for t in trials]) is not None


def test_smaller_programs_are_other_programs() -> None:
    for seed in range(0, 40, 10):
        case = draw(seed)
        assert case not in list(smaller(case))


def test_writing_sums_is_bounded_by_their_terms() -> None:
    """Terms that cancel out leave what the order of their additions makes of them."""
    lines = ("x.index_put_((z,), y, accumulate=True)", "b = torch.ops.aten.unsafe_split.Tensor(x, 1)[0]")
    inputs = (
        Input("x", 'tensor((1,), torch.float32, "normal", 1)'), Input("y", 'tensor((64,), torch.float32, "large", 2)'),
        Input("z", 'indices((64,), 1, "equal", 3)'),
    )  # fmt: skip
    case = replace(FLIP, inputs=inputs, lines=lines, results=("b",), way="recorded")
    assert judge(case) == ""
    products = tuple(Input(n, f'tensor((2, 40, 40), torch.float32, "large", {k})') for k, n in enumerate("xyz"))
    assert judge(replace(case, inputs=products, lines=("x.baddbmm_(y, z)",), results=("x",))) == ""


def test_a_mean_of_infinities_is_an_infinity_or_nan() -> None:
    lines = ("z = torch.full((2, 3), -inf)", "a, b = torch.std_mean(x + z, 1)", "c = F.gelu(F.celu(b))")
    inputs = (Input("x", 'tensor((2, 3), torch.float32, "normal", 1)'),)
    case = replace(FLIP, inputs=inputs, lines=lines, results=("c",), way="recorded")
    assert judge(case) == ""


def test_a_variance_of_doubles_is_a_sum_of_many_terms() -> None:
    inputs = (Input("z", 'tensor((2, 5, 5, 5), torch.float64, "flat", 878)'),)
    case = replace(FLIP, inputs=inputs, state=(), lines=("g = z.var(correction=0)",), results=("g",), way="recorded")
    assert judge(case) == ""


def test_what_eager_reads_unwritten_is_not_drawn() -> None:
    assert UNWRITTEN.search('F.pad(z, (-1, 2, 2, -1), mode="circular")')
    assert not UNWRITTEN.search('F.pad(z, (1, 2, 2, 0), mode="circular")')


def test_a_bias_may_be_added_to_a_convolution_that_is_rounded() -> None:
    inputs = (Input("z", 'tensor((16, 2, 16), torch.float16, "halves", 998)'),)
    weights = (
        ("p0", 'nn.Parameter(tensor((2, 2, 3), torch.float16, "normal", 689))'),
        ("p1", 'nn.Parameter(tensor((2,), torch.float16, "normal", 596))'),
    )
    lines = ("a = F.conv_transpose1d(z, self.p0, self.p1, stride=3)",)
    case = replace(FLIP, inputs=inputs, state=weights, lines=lines, results=("a",), way="recorded")
    assert judge(case) == ""


def test_places_of_no_elements_may_be_anywhere() -> None:
    """Eager reads nothing there, and refuses nothing."""
    inputs = (
        Input("x", 'tensor((2, 3, 0), torch.float32, "normal", 1)'), Input("y", 'indices((1,), 33, "any", 566)'),
        Input("z", 'indices((2,), 2, "any", 504)'),
    )  # fmt: skip
    case = replace(FLIP, inputs=inputs, state=(), lines=("b = x[z, y]",), results=("b",), way="recorded")
    assert judge(case) == "" and judge(replace(case, way="compiled")) == ""
