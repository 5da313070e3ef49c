"""Methods of quantizing and pruning: what they promise of a layer's output on the data that they were given."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import effcc
from effcc.accuracy import check
from effcc.compression.calibration import gather
from effcc.compression.calls import calls_of
from effcc.compression.inputs import InputChange, hadamard_matrix
from effcc.compression.methods.gptq import inverse_factor
from effcc.errors import EffccError, EncodingError, InputError, IRSyntaxError, UnknownNameError

WIDTH = 64


def correlated(rows: int, columns: int = WIDTH) -> Tensor:
    """Inputs as layers see them: few directions hold most, and some channels are much larger than others."""
    g = torch.Generator().manual_seed(1)
    mixing = torch.randn(columns, columns, generator=g) * torch.logspace(0, -1.5, columns)[:, None]
    return torch.randn(rows, columns, generator=g) @ mixing * torch.exp(torch.randn(columns, generator=g))


def layer(outputs: int = 48) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(WIDTH, outputs))


def error(encoded: nn.Module, dense: nn.Module, x: Tensor) -> float:
    """How far outputs are off, over the norm of what the weight contributes."""
    with torch.no_grad():
        return float((encoded(x) - dense(x)).norm() / (dense(x) - dense[0].bias).norm())  # type: ignore[index, union-attr, operator]


@pytest.mark.parametrize(
    ("method", "at_most"),
    [("gptq", 0.45), ("quantease", 0.45), ("awq", 0.95), ("awq+gptq", 0.4), ("hadamard+gptq", 0.7)],
)
def test_methods_beat_nearest_on_inputs_that_they_did_not_see(method: str, at_most: float) -> None:
    dense, seen, unseen = layer(), correlated(1024)[:768], correlated(1024)[768:]
    nearest = effcc.quantize(copy.deepcopy(dense), "int4(group=32)")
    better = effcc.quantize(copy.deepcopy(dense), "int4(group=32)", method=method, data=seen)
    assert error(better, dense, unseen) < at_most * error(nearest, dense, unseen)
    stated = float(better[0].weight_error)  # type: ignore[arg-type]
    torch.testing.assert_close(stated, error(better, dense, seen), rtol=1e-3, atol=0)


def test_coordinate_descent_is_never_worse_than_gptq() -> None:
    dense, x = layer(), correlated(512)
    errors = [
        effcc.quantize(copy.deepcopy(dense), "int3(group=16)", method=m, data=x)[0].weight_error
        for m in ("gptq", "quantease")
    ]
    assert errors[1] < errors[0]  # type: ignore[operator]


@pytest.mark.parametrize("level", [("block(4,1)", 0.5), ("nm(2,4)", None)])
def test_sparse_weights_are_rounded_by_what_they_are_given(level: tuple[str, float | None]) -> None:
    scheme, density = level
    dense, x = layer(), correlated(1024)
    sparse = effcc.sparsify(dense, scheme, density=density, method="sparsegpt", data=x[:768])
    nearest, better = (
        effcc.quantize(copy.deepcopy(sparse), "int4(group=16)", method=m, data=x[:768])
        for m in ("nearest", "quantease")
    )
    assert better[0].encoding == f"{scheme} . int4(group=16)"
    assert torch.equal(better[0].weight == 0, (better[0].weight == 0) | (sparse[0].weight == 0))  # type: ignore[index]
    assert error(better, sparse, x[768:]) < 0.6 * error(nearest, sparse, x[768:])


@pytest.mark.parametrize("block", ["block(4,1)", "block(1,1)"])
def test_pruning_with_data_beats_magnitudes(block: str) -> None:
    dense, x = layer(), correlated(1024)
    errors = [
        error(effcc.sparsify(copy.deepcopy(dense), block, density=0.5, method=m, data=x[:768]), dense, x[768:])
        for m in ("magnitude", "wanda", "sparsegpt")
    ]
    assert errors[1] < 0.7 * errors[0]
    assert errors[2] < 0.9 * errors[1]


def test_a_batch_of_no_rows_is_turned_as_any_other() -> None:
    turned = effcc.quantize(nn.Linear(64, 8), "int5", method="hadamard")
    assert turned(torch.zeros(0, 4, 64)).shape == (0, 4, 8)


def test_hadamard_spreads_an_outlier_among_its_block() -> None:
    dense = layer()
    with torch.no_grad():
        dense[0].weight[:, 5] *= 30  # type: ignore[index]
    nearest = effcc.quantize(copy.deepcopy(dense), "int4")
    turned = effcc.quantize(copy.deepcopy(dense), "int4", method="hadamard")
    x = torch.randn(64, WIDTH)
    assert error(turned, dense, x) < 0.6 * error(nearest, dense, x)


def test_smoothed_inputs_lose_less_when_they_are_bytes() -> None:
    dense, x = layer(), torch.randn(256, WIDTH) * torch.exp(1.5 * torch.randn(WIDTH))

    def bytes_of(rows: Tensor) -> Tensor:
        scale = rows.abs().amax(-1, keepdim=True) / 127
        return torch.round(rows / scale) * scale

    errors = []
    for method in ("nearest", "smoothquant"):
        made: Any = effcc.quantize(copy.deepcopy(dense), method=method, data=x)[0]
        with torch.no_grad():
            got, expected = bytes_of(made.changed(x)) @ made.weight.T, x @ dense[0].weight.T
        errors.append(float((got - expected).norm()))
    assert errors[1] < 0.7 * errors[0]


def test_a_scaled_input_costs_no_kernel() -> None:
    model, x = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 32)), correlated(8)
    encoded = effcc.quantize(model, "int4(group=32)", method="awq", data=x)
    assert encoded[1].input_scale is not None
    torch._dynamo.reset()
    compiled = torch.compile(encoded, backend="effcc")
    with torch.no_grad():
        compiled(x)
    assert effcc.stats(compiled).kernels == 2


@pytest.mark.parametrize("groups", [1, 2, 8])
@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_convolutions_are_rounded_by_what_their_patches_are(groups: int, method: str) -> None:
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Conv2d(8, 16, 3, stride=2, padding=1, dilation=2, groups=groups, padding_mode="reflect"))
    scale = torch.exp(2 * torch.randn(8, 1, 1))
    x = nn.functional.avg_pool2d(torch.randn(8, 8, 26, 26), 3, 1) * scale
    convolutions: Any = {"where": lambda _, m: isinstance(m, nn.Conv2d)}
    made = [effcc.quantize(copy.deepcopy(dense), "int4", method=m, data=x, **convolutions) for m in ("nearest", method)]
    with torch.no_grad():
        bias = dense[0].bias[:, None, None]  # type: ignore[index]
        errors = [float((m(x) - dense(x)).norm() / (dense(x) - bias).norm()) for m in made]
    assert errors[1] < errors[0] if method == "gptq" else errors[1] <= errors[0] * 1.001
    torch.testing.assert_close(errors[1], made[1][0].weight_error, rtol=1e-3, atol=1e-5)


def test_the_factor_is_that_of_the_inverse() -> None:
    x = torch.randn(2, 40, 12, dtype=torch.float64)
    gram = x.transpose(1, 2) @ x
    factor = inverse_factor(gram)
    assert torch.equal(factor, factor.triu())
    torch.testing.assert_close(factor.transpose(1, 2) @ factor, torch.linalg.inv(gram).float(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("groups", [1, 3])
def test_changing_the_input_and_the_weight_keeps_the_product(groups: int) -> None:
    weight, x = torch.randn(groups, 5, 16), torch.randn(groups, 9, 16)
    change = InputChange(torch.rand(groups * 8) + 0.5, hadamard_matrix(4))
    columns = change.scale.reshape(groups, 1, 8).repeat_interleave(2, 2)  # type: ignore[union-attr]
    changed = (x.reshape(groups, 9, 4, 4) @ hadamard_matrix(4)).reshape(groups, 9, 16) * columns
    product = changed @ change.of_weight(weight, 2).transpose(1, 2)
    torch.testing.assert_close(product, x @ weight.transpose(1, 2), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(change.undone(change.of_weight(weight, 2), 2), weight, rtol=1e-4, atol=1e-5)
    gram = change.of_gram(x.transpose(1, 2) @ x, 2)
    torch.testing.assert_close(gram, changed.transpose(1, 2) @ changed, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("method", ["awq", "hadamard"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_layers_whose_input_is_changed_compile(method: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, 8)).to(dtype)
    x = correlated(9).to(dtype)
    encoded = effcc.quantize(dense, "int4(group=32)", method=method, data=x)
    torch._dynamo.reset()
    with torch.no_grad():
        got = torch.compile(encoded, backend="effcc")(x)
        report = check(copy.deepcopy(encoded).double()(x.double()), encoded(x), got)
    assert report.ok, str(report.worst)


class Attention(nn.Module):
    """Two projections of one tensor, one of another, and one that is given either."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.out, self.either = (nn.Linear(6, 6) for _ in range(4))

    def forward(self, x: Tensor, swap: bool = False) -> Tensor:
        y = self.q(x) + self.k(x)
        return self.out(y) + self.either(y if swap else x)  # type: ignore[no-any-return]


def test_layers_that_are_given_the_same_tensor_share_what_they_see() -> None:
    model, calls = Attention(), calls_of([(torch.randn(5, 6),), {"x": torch.randn(3, 6)}])
    seen = gather(model, {n: m for n, m in model.named_modules() if n}, calls)
    assert seen["q"] is seen["k"]
    assert seen["q"].rows == 8
    x = torch.cat([calls[0].args[0], calls[1].kwargs["x"]])
    torch.testing.assert_close(seen["k"].gram[0], x.T @ x)
    torch.testing.assert_close(seen["out"].gram[0], (y := model.q(x) + model.k(x)).T @ y)


def test_layers_that_are_given_the_same_tensor_only_at_times_do_not() -> None:
    model, x = Attention(), torch.randn(5, 6)
    seen = gather(model, {n: m for n, m in model.named_modules() if n}, calls_of([(x,), (x, True)]))
    y = model.q(x) + model.k(x)
    torch.testing.assert_close(seen["q"].gram[0], 2 * x.T @ x)
    torch.testing.assert_close(seen["either"].gram[0], x.T @ x + y.T @ y)


def test_calibration_leaves_modes_as_they_were() -> None:
    model = nn.Sequential(nn.Linear(WIDTH, 8), nn.Dropout(0.5), nn.Linear(8, 2))
    model[1].eval()
    effcc.quantize(model, method="gptq", data=correlated(16))
    assert [m.training for m in model] == [True, False, True]


def test_layers_get_the_scheme_of_the_first_pattern_that_fits() -> None:
    model = nn.ModuleDict({n: nn.Linear(32, 8) for n in ("up", "down", "head", "other")})
    effcc.quantize(model, {"down": "int8", "head": None, "[uod]*": "int4(group=16)"})
    kinds = {n: getattr(m, "encoding", "dense") for n, m in model.items()}
    four = "int4(group=16)"
    assert kinds == {"up": four, "down": 'int8(per="channel")', "head": "dense", "other": four}


@pytest.mark.parametrize(
    ("encode", "kind", "message"),
    [
        (lambda m: effcc.quantize(m, "int4(group=)"), IRSyntaxError, r"\^"),
        (lambda m: effcc.quantize(m, method="gptqq", data=[]), UnknownNameError, "did you mean 'gptq'"),
        (lambda m: effcc.quantize(m, method="gptq"), InputError, "gptq needs calibration data: data="),
        (lambda m: effcc.sparsify(m, density=0.5, method="wanda"), InputError, "wanda needs calibration data"),
        (lambda m: effcc.quantize(m, method="gptq", data=[]), InputError, "at least one call"),
        (lambda m: effcc.quantize(m, method="gptq", data=[3]), InputError, "call 0 is a int"),
        (lambda m: effcc.quantize(m, method="gptq", data=torch.zeros(2, 3)), InputError, r"float32\[2,3\]|\[2, 3\]"),
        (lambda m: effcc.quantize(m, method="gptq", data=[(correlated(2),) * 2]), InputError, "does not take call 0"),
        (
            lambda m: effcc.quantize(m, method="gptq", data=[correlated(2), correlated(2) / 0]),
            InputError,
            "call 1 holds infinities or NaN",
        ),
        (lambda m: effcc.quantize(m, {"1": "int8"}), EncodingError, "pattern '1'"),
        (lambda m: effcc.quantize(m, {}), EncodingError, "at least one pattern"),
        (lambda m: effcc.quantize(m, method="awq+hadamard", data=correlated(9)), EncodingError, "changed already"),
        (
            lambda m: effcc.quantize(effcc.sparsify(m, density=0.5), method="gptq", data=correlated(9)),
            EncodingError,
            "0: gptq rounds dense weights",
        ),
    ],
)
def test_what_does_not_fit_is_refused(
    encode: Callable[[nn.Module], nn.Module], kind: type[EffccError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        encode(layer())


def test_a_layer_that_no_data_reach_is_named_and_the_model_stays() -> None:
    model = Attention()
    model.other = nn.Linear(6, 6)
    with pytest.raises(InputError, match="other never ran"):
        effcc.quantize(model, method="gptq", data=torch.randn(4, 6))
    with pytest.raises(InputError, match="infinities or NaN reach out"):
        model.q.weight.data[0] = float("inf")
        effcc.quantize(model, method="gptq", data=torch.randn(4, 6), where=lambda n, _: n == "out")
    assert all(type(m) is nn.Linear for m in model.children())
    assert not any(m._forward_pre_hooks for m in model.children())


def test_a_table_is_rounded_to_nearest_and_a_shared_one_is_not_turned() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = nn.Embedding(16, 8), nn.Linear(8, 16, bias=False)
            self.head.weight = self.table.weight

        def forward(self, ids: Tensor) -> Tensor:
            return self.head(self.table(ids))  # type: ignore[no-any-return]

    everything: Any = {"where": lambda n, _: bool(n), "data": [torch.arange(16)]}
    tied = effcc.quantize(Tied(), "int8", method="gptq", **everything)
    assert tied.table.weight_values is tied.head.weight_values
    with pytest.raises(EncodingError, match="another module looks its rows up"):
        effcc.quantize(Tied(), "int8", method="awq", **everything)


def test_what_layers_see_can_be_gathered_once_for_several_runs() -> None:
    dense, x = layer(), correlated(256)
    seen = effcc.calibrate(dense, x)
    for method in ("gptq", "awq"):
        made = [effcc.quantize(copy.deepcopy(dense), "int4(group=16)", method=method, data=d) for d in (x, seen)]
        torch.testing.assert_close(dict(made[0].state_dict()), dict(made[1].state_dict()), rtol=0, atol=0)
    with pytest.raises(InputError, match="0 multiplies 8 inputs in 1 groups; the calibration is of 64"):
        effcc.quantize(nn.Sequential(nn.Linear(8, 8)), method="gptq", data=seen)
    with pytest.raises(InputError, match="1 was not calibrated"):
        effcc.quantize(nn.Sequential(dense[0], nn.Linear(48, 8)), method="gptq", data=seen)
