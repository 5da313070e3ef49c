"""Channels without effect that are removed: the same function of fewer numbers, and nothing removed that has one."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import effcc
from effcc.compression.dead_channels import Removed
from effcc.errors import InputError, NumericsError


def pruned(weight: Tensor, *rows: int) -> None:
    weight.data[list(rows)] = 0


def drawn(model: nn.Module) -> nn.Module:
    """A model whose norms do something, in evaluation mode."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            for t in (module.weight.data, module.running_var):
                nn.init.uniform_(t, 0.5, 1.5)
            for t in (module.bias.data, module.running_mean):
                nn.init.normal_(t)
    return model.eval()


def same_without(model: nn.Module, *calls: Tensor) -> Removed:
    """Remove dead channels; results have to stay."""
    expected = [copy.deepcopy(model)(x) for x in calls]
    found, report = effcc.remove_dead_channels(model, data=list(calls))
    assert found is model
    for x, want in zip(calls, expected, strict=True):
        torch.testing.assert_close(model(x), want, rtol=1e-4, atol=1e-5)
    return report


class Inverted(nn.Module):
    """A residual block with a depthwise convolution, and layers that read what it gives through a view."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm0 = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.wide, self.norm1 = nn.Conv2d(8, 12, 1, bias=False), nn.BatchNorm2d(12)
        self.each, self.norm2 = nn.Conv2d(12, 12, 3, padding=1, groups=12, bias=False), nn.BatchNorm2d(12)
        self.thin, self.norm3 = nn.Conv2d(12, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.head, self.out = nn.Linear(8 * 9, 10), nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm0(self.stem(x)))
        h = F.relu6(self.norm1(self.wide(x)))
        h = F.hardswish(self.norm2(self.each(h)), inplace=True)
        x = F.max_pool2d(x + self.norm3(self.thin(h)), 2)
        made: Tensor = self.out(F.gelu(self.head(x.flatten(1))))
        return made


IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def test_a_channel_goes_with_its_rows_columns_and_norms_and_its_constant_moves_into_biases() -> None:
    model = drawn(Inverted())
    pruned(model.each.weight, 0, 1, 2)
    pruned(model.head.weight, 4)
    report = same_without(model, IMAGES)
    assert model.wide.weight.shape == (9, 8, 1, 1) and model.each.groups == 9 == model.norm2.num_features
    assert model.thin.in_channels == 9 and model.thin.bias is not None  # it had none, and takes f(b)
    assert (model.head.out_features, model.out.in_features) == (9, 9)
    assert report.bytes < report.bytes_before and "wide.weight: [12, 8, 1, 1] -> [9, 8, 1, 1]" in str(report)


def test_a_channel_of_a_sum_goes_only_where_all_that_is_added_is_dead() -> None:
    model = drawn(Inverted())
    pruned(model.stem.weight, 0, 1)
    pruned(model.thin.weight, 1, 2)
    report = same_without(model, IMAGES)
    assert model.stem.out_channels == 7 and model.thin.out_channels == 7
    assert model.head.in_features == 7 * 9
    assert [k.rows for k in report.kept] == [1, 1]


def test_a_constant_that_a_border_of_zeros_meets_stays() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sigmoid(), nn.Conv2d(4, 5, 3, padding=1)).eval()
    pruned(model[0].weight, 0)
    same_without(model, IMAGES)
    assert model[0].out_channels == 4
    model[1] = nn.ReLU()
    model[0].bias.data[0] = -1.0  # the constant is 0
    same_without(model, IMAGES)
    assert model[0].out_channels == 3


def test_what_nothing_reads_goes_back_to_where_it_comes_from() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    model[4].weight.data[:, 5:] = 0  # three channels are not read, and two others read by these alone
    model[2].weight.data[:5, :2] = 0
    same_without(model, torch.randn(4, 6))
    assert [model[i].out_features for i in (0, 2, 4)] == [6, 5, 3]


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.gate, self.up, self.down = (nn.Linear(*s, bias=False) for s in ((8, 12), (8, 12), (12, 8)))
        self.scale = nn.Parameter(torch.rand(12))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        made: Tensor = x + self.down(F.silu(self.gate(h)) * self.up(h) * self.scale)
        return made


def test_a_product_with_a_dead_channel_is_dead_and_what_a_norm_reads_stays() -> None:
    model = nn.Sequential(nn.Linear(5, 8), Gated(), Gated()).eval()
    pruned(model[0].weight, 3)
    pruned(model[1].gate.weight, 0, 1)
    pruned(model[1].up.weight, 1, 2)
    report = same_without(model, torch.randn(3, 5))
    assert model[1].down.weight.shape == (8, 9) and len(model[1].scale) == 9
    assert [(k.name, k.rows, k.why) for k in report.kept] == [("0.weight", 1, "read by layer_norm")]


class Branches(nn.Module):
    """Squeezed and excited channels, side by side with others, and a shared layer."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.squeeze = nn.Conv2d(3, 6, 1), nn.Conv2d(3, 4, 1), nn.Conv2d(6, 6, 1)
        self.last = nn.Conv2d(10, 10, 1)
        self.out = nn.Linear(10, 2)

    def forward(self, x: Tensor) -> Tensor:
        a = F.relu(self.a(x))
        a = a * torch.sigmoid(self.squeeze(a.mean((2, 3), keepdim=True)))
        x = torch.cat([a, F.relu(self.b(x))], 1)
        x = F.relu(self.last(F.relu(self.last(x))))
        made: Tensor = self.out(x.mean((2, 3)))
        return made


def test_channels_side_by_side_and_layers_that_run_twice() -> None:
    model = Branches().eval()
    pruned(model.a.weight, 0)
    pruned(model.b.weight, 1)
    pruned(model.last.weight, 0, 7)  # its rows 0 and 7 are its columns' channels of both
    for bias in (model.a.bias, model.b.bias, model.last.bias):
        nn.init.zeros_(bias)
    same_without(model, IMAGES)
    assert (model.a.out_channels, model.squeeze.out_channels, model.b.out_channels) == (5, 5, 3)
    assert model.last.weight.shape == (8, 8, 1, 1) and model.out.in_features == 8


class Fixed(nn.Module):
    """A view that is told the number of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.c(F.relu(self.b(F.relu(self.a(x)).view(-1, 6))))
        return made


def test_channels_whose_number_a_program_keeps_stay_and_others_go() -> None:
    model = Fixed()
    pruned(model.a.weight, 1)
    pruned(model.b.weight, 2)
    report = same_without(model, torch.randn(3, 4))
    assert (model.a.out_features, model.b.out_features) == (6, 5)
    assert [(k.name, k.why) for k in report.kept] == [("a.weight", "read by view")]


def test_a_weight_whose_rows_are_all_zero_keeps_one() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    pruned(model[0].weight, *range(6))
    same_without(model, torch.randn(3, 4))
    assert model[0].out_features == 1


def test_parameters_keep_what_they_are_and_the_smaller_model_trains_and_compiles() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).double()
    model[2].weight.requires_grad_(False)
    pruned(model[0].weight, 1, 2)
    x = torch.randn(3, 4, dtype=torch.float64)
    same_without(model, x)
    assert model[0].weight.dtype == torch.float64 and not model[2].weight.requires_grad
    model(x).sum().backward()
    assert model[0].weight.grad is not None and model[0].weight.grad.shape == (6, 4)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(model, backend="effcc")(x), model(x))


class Unseen(nn.Module):
    """Computes with the number of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.b(F.relu(self.a(x))) + self.a.weight.shape[0]
        return made


def test_a_model_that_computes_with_the_number_of_channels_is_refused_and_as_it_was() -> None:
    model = Unseen()
    pruned(model.a.weight, 1)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(NumericsError, match=r"call 0 changes by 1.*more than rounding"):
        effcc.remove_dead_channels(model, data=torch.randn(3, 4))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items()) and model.a.out_features == 6


def test_data_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="does not take call 0"):
        effcc.remove_dead_channels(nn.Linear(4, 2), data=torch.randn(3, 5))
    with pytest.raises(InputError, match="got str"):
        effcc.remove_dead_channels("model", data=torch.randn(3, 5))
