"""Budgets: kept, spent where they serve most, resumable, and the model untouched where they cannot be kept."""

from __future__ import annotations

import copy
import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import effcc
from effcc.budget import sensitivities
from effcc.budget.compress import SOLVERS, compress
from effcc.compression.modules import EncodedLinear
from effcc.errors import BudgetError, EncodingError, InputError, UnknownNameError

SCHEMES: dict[str, Any] = {
    "int8": "int8",
    "half": lambda m, where: effcc.sparsify(m, "block(1,1)", density=0.5, where=where),
    "quarter, int8": lambda m, where: effcc.quantize(
        effcc.sparsify(m, "block(4,1)", density=0.25, where=where), "int8", where=where
    ),
}
OPTIONS: dict[str, Any] = {"schemes": SCHEMES, "target": "avx2", "progress": False}


def model() -> nn.Module:
    """Four layers, the first of which matters little: its output is scaled down."""
    torch.manual_seed(0)
    made = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 16)).eval()
    return nn.Sequential(made, nn.Linear(16, 8)).eval()


def data() -> Tensor:
    return torch.randn(24, 32, generator=torch.Generator().manual_seed(1))


def real_bytes(m: nn.Module) -> int:
    return sum({id(t): t.nbytes for t in (*m.parameters(), *m.buffers())}.values())


def state(m: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in m.state_dict().items()}


def assert_untouched(m: nn.Module, before: dict[str, Tensor]) -> None:
    assert all(type(layer) is not EncodedLinear for layer in m.modules())
    after = m.state_dict()
    assert list(after) == list(before)
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=0, atol=0)


@pytest.mark.parametrize("solver", SOLVERS)
def test_bytes_are_kept_and_reported_as_they_are(solver: str) -> None:
    plain, x = model(), data()
    dense = real_bytes(plain)
    expected = plain(x)
    made, report = compress(plain, bytes=0.4 * dense, data=x, solver=solver, **OPTIONS)
    assert made is plain
    assert report.bytes == real_bytes(made) <= 0.4 * dense
    assert report.dense_bytes == dense
    with torch.no_grad():
        error = float((made(x) - expected).square().sum() / expected.square().sum())
    assert report.error == pytest.approx(error, rel=1e-4)
    assert [type(made.get_submodule(layer.name)) is nn.Linear for layer in report.layers] == [
        layer.scheme == "dense" for layer in report.layers
    ]


def test_a_mixed_choice_is_better_than_the_uniform_one_of_equal_bytes() -> None:
    plain, x = model(), data()
    _, uniform = compress(copy.deepcopy(plain), bytes=1e9, data=x, **{**OPTIONS, "schemes": {}})
    assert uniform.error == 0
    half = effcc.sparsify(copy.deepcopy(plain), "block(1,1)", density=0.5)
    _, report = compress(plain, bytes=real_bytes(half), data=x, **OPTIONS)
    with torch.no_grad():
        expected = model()(x)
        error = float((half(x) - expected).square().sum() / expected.square().sum())
    assert report.bytes <= real_bytes(half)
    assert report.error < error / 10


@pytest.mark.parametrize("solver", SOLVERS)
def test_an_error_is_kept_as_measured_with_the_fewest_bytes(solver: str) -> None:
    small, x = model(), data()
    _, report = compress(small, error=0.02, data=x, solver=solver, **OPTIONS)
    assert 0 < report.error <= 0.02
    _, strict = compress(model(), error=1e-5, data=x, solver=solver, **OPTIONS)
    assert strict.error <= 1e-5
    assert report.bytes < strict.bytes < report.dense_bytes


def test_milliseconds_bound_the_predicted_time() -> None:
    big = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 512)).eval()
    x = torch.randn(128, 512)  # as many rows as make a quarter of the products the quicker ones
    _, free = compress(copy.deepcopy(big), bytes=1e9, data=x, **OPTIONS)
    allowed = 0.7 * free.dense_seconds
    _, report = compress(big, milliseconds=1000 * allowed, data=x, **OPTIONS)
    assert report.seconds <= allowed < free.seconds


def test_rows_say_what_time_is_predicted_for() -> None:
    x = torch.randn(64, 32)
    one, many = (compress(model(), bytes=1e9, data=x, rows=rows, **OPTIONS)[1].dense_seconds for rows in (1, 4096))
    assert many > 10 * one


def test_a_budget_below_the_least_says_how_little_is_possible_and_leaves_the_model() -> None:
    plain = model()
    before = state(plain)
    least = real_bytes(effcc.quantize(effcc.sparsify(model(), "block(4,1)", density=0.25), "int8"))
    with pytest.raises(BudgetError, match=f"least possible is {least}$"):
        compress(plain, bytes=least - 1, data=data(), **OPTIONS)
    assert_untouched(plain, before)
    assert compress(plain, bytes=least, data=data(), **OPTIONS)[1].bytes == least


def test_the_model_is_as_it_was_when_measuring_fails() -> None:
    plain = model()
    before = state(plain)

    def failing(reference: Tensor, output: Tensor) -> float:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        compress(plain, bytes=1e4, data=data(), measure=failing, **OPTIONS)
    assert_untouched(plain, before)


def test_measurements_are_resumed_and_known_by_weights_and_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    error = sensitivities.Trial.error

    def counted(trial: sensitivities.Trial, exchanged: Any) -> float:
        calls.append(len(exchanged))
        return error(trial, exchanged)

    monkeypatch.setattr(sensitivities.Trial, "error", counted)
    options = {**OPTIONS, "bytes": 5000, "resume": tmp_path / "measured.jsonl"}
    _, first = compress(model(), data=data(), **options)
    once = len(calls)
    assert once == 4 * len(SCHEMES) + 1  # each layer in each scheme, then the choice
    with (tmp_path / "measured.jsonl").open("a") as file:
        file.write('\n{"key": "cut sho')
    _, again = compress(model(), data=data(), **options)
    assert again == first
    assert len(calls) == once + 1
    other = model()
    with torch.no_grad():
        other[1].weight.mul_(2)  # type: ignore[index, union-attr]
    compress(other, data=data(), **options)
    compress(model(), data=2 * data(), **options)
    assert len(calls) == 3 * once + 1


@pytest.mark.parametrize("measure", ["squared", "kl"])
def test_errors_that_there_was_no_time_to_measure_are_estimated_from_gradients(measure: str) -> None:
    torch.manual_seed(0)
    layers = nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.Tanh(), nn.Linear(128, 32)
    plain = nn.Sequential(*layers).eval()
    with torch.no_grad():
        layers[2].weight.mul_(4)
    found = {}
    for minutes in (10, 0):
        options = {**OPTIONS, "schemes": ["int4(group=32)"], "minutes": minutes, "measure": measure}
        _, report = compress(copy.deepcopy(plain), bytes=20_000, data=torch.randn(64, 64), **options)
        assert [layer.measured for layer in report.layers] == [minutes > 0] * 3
        found[minutes] = [layer.error for layer in report.layers]
    for measured, estimated in zip(found[10], found[0], strict=True):
        assert estimated == pytest.approx(measured, rel=0.3)


def test_a_method_makes_the_candidates() -> None:
    options = {**OPTIONS, "schemes": ["int3(group=16)"], "bytes": 2400}
    errors = [compress(model(), data=data(), method=m, **options)[1].error for m in ("nearest", "gptq")]
    assert errors[1] < errors[0]


def test_layers_that_share_a_weight_are_stored_alike_once() -> None:
    torch.manual_seed(0)
    tied = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32)).eval()
    tied[2].weight = tied[0].weight  # type: ignore[union-attr]
    made, report = compress(tied, bytes=2000, data=data(), **OPTIONS)
    assert len(report.layers) == 1
    assert report.bytes == real_bytes(made) <= 2000
    assert made[0].weight_values is made[2].weight_values  # type: ignore[index, union-attr]


class Decoder(nn.Module):
    """A table that is read at both ends, as language models have."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.middle, self.head = nn.Embedding(50, 32), nn.Linear(32, 32), nn.Linear(32, 50, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Any:
        return self.head(self.middle(self.embed(tokens)).relu())


def test_a_weight_that_stays_dense_elsewhere_is_counted_beside_its_encoding() -> None:
    tokens = torch.arange(20).reshape(2, 10)
    dense = real_bytes(Decoder())
    made, report = compress(Decoder().eval(), bytes=dense, data=tokens, measure="kl", **OPTIONS)
    assert report.bytes == real_bytes(made) <= dense
    assert [layer.scheme for layer in report.layers if layer.name == "head"] == ["dense"]
    both, shared = compress(
        Decoder().eval(),
        bytes=0.6 * dense,
        data=tokens,
        measure="kl",
        where=lambda _, m: isinstance(m, nn.Linear | nn.Embedding),
        **OPTIONS,
    )
    assert shared.bytes == real_bytes(both) <= 0.6 * dense
    assert [layer.name for layer in shared.layers] == ["embed, head", "middle"]


def test_hooks_modes_and_equal_parameters_stay_the_models_own() -> None:
    plain = model()
    bias, seen = plain[1].bias, []  # type: ignore[index, union-attr]
    plain[1].register_forward_hook(lambda *_: seen.append(1))  # type: ignore[index, union-attr]
    plain.train()
    made, _ = compress(plain, bytes=3000, data=data(), **OPTIONS)
    seen.clear()
    made(data())
    assert seen == [1]
    assert made[1].bias is bias  # type: ignore[index, union-attr]
    assert all(m.training for m in made.modules())


def test_a_scheme_that_does_not_fit_a_layer_is_left_out_there() -> None:
    odd = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 6)).eval()
    only = {**OPTIONS, "schemes": {"quarter": SCHEMES["quarter, int8"]}}
    _, report = compress(odd, bytes=2500, data=data(), **only)
    assert [layer.scheme for layer in report.layers] == ["quarter", "dense"]
    with pytest.raises(EncodingError, match="block"):
        compress(nn.Linear(32, 6).eval(), bytes=2500, data=data(), **only)


def test_a_recipe_that_changes_other_weights_is_refused() -> None:
    def scaling(m: nn.Module, where: Any) -> None:
        with torch.no_grad():
            m[1].weight.mul_(2)  # type: ignore[index, operator, union-attr]

    plain = model()
    before = state(plain)
    with pytest.raises(EncodingError, match="'scaling' changes 1 too"):
        compress(
            plain, bytes=1e4, data=data(), where=lambda n, _: n == "0.0", target="avx2", schemes={"scaling": scaling}
        )
    assert_untouched(plain, before)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({}, InputError, "needs a budget"),
        ({"bytes": float("nan")}, InputError, "bytes=nan"),
        ({"bytes": "30 MB"}, InputError, "bytes='30 MB'"),
        ({"bytes": 1e4, "schemes": "int9000"}, UnknownNameError, "int9000"),
        ({"bytes": 1e4, "data": []}, InputError, "at least one call"),
        ({"bytes": 1e4, "data": torch.full((2, 32), float("nan"))}, InputError, "infinities or NaN"),
        ({"bytes": 1e4, "data": 3}, InputError, "got int"),
        ({"bytes": 1e4, "solver": "simplex"}, UnknownNameError, "simplex"),
        ({"bytes": 1e4, "measure": "cosine"}, UnknownNameError, "cosine"),
        ({"bytes": 1e4, "schemes": ["int9000"]}, UnknownNameError, "int9000"),
        ({"bytes": 1e4, "where": lambda *_: False}, EncodingError, "no weight"),
        ({"bytes": 1e4, "where": lambda _, m: isinstance(m, nn.ReLU)}, EncodingError, "ReLU"),
    ],
)
def test_bad_input_is_refused(options: dict[str, Any], kind: type[Exception], message: str) -> None:
    plain = model()
    before = state(plain)
    with pytest.raises(kind, match=message):
        compress(plain, **{"data": data(), **OPTIONS, **options})
    assert_untouched(plain, before)


def test_a_model_whose_own_results_are_no_numbers_is_refused() -> None:
    plain = model()
    with torch.no_grad():
        list(plain.parameters())[-1][0] = float("nan")
    with pytest.raises(InputError, match="own result of call 0 holds NaN"):
        compress(plain, data=data(), bytes=1e4, **OPTIONS)
    assert not any(isinstance(m, EncodedLinear) for m in plain.modules())


def test_an_interrupt_between_two_layers_leaves_the_model_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = model()
    before = state(plain)
    budget = importlib.import_module("effcc.budget.compress")
    real, real_install, calls = torch.equal, budget._install, iter(range(1000))

    def interrupted(*given: Any) -> bool:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return real(*given)

    def install(*given: Any) -> None:
        monkeypatch.setattr(torch, "equal", interrupted)
        real_install(*given)

    monkeypatch.setattr(budget, "_install", install)
    with pytest.raises(KeyboardInterrupt):
        compress(plain, data=data(), bytes=5000, **OPTIONS)
    monkeypatch.undo()
    assert_untouched(plain, before)


def test_layers_that_data_does_not_reach_are_named() -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Linear(32, 4), nn.Linear(32, 4)

        def forward(self, x: Tensor) -> Any:
            return self.used(x)

    with pytest.raises(InputError, match="idle"):
        compress(Half().eval(), bytes=1e4, data=data(), **OPTIONS)


def test_the_report_is_a_table_and_a_plot(tmp_path: Path) -> None:
    _, report = compress(model(), bytes=5000, data=data(), **OPTIONS)
    text = str(report)
    assert all(layer.name in text and layer.scheme in text for layer in report.layers)
    errors = [p.error for p in sorted(report.front, key=lambda p: p.bytes)]
    assert errors == sorted(errors, reverse=True)
    report.plot(tmp_path / "front.html")
    assert "Pareto front" in (tmp_path / "front.html").read_text()
