"""Training through torch.compile: gradients as near to float64's as eager's, and the kernels that they come from."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from effcc.accuracy import check
from effcc.backend import _REGISTRY, effcc_backend, programs_of
from effcc.faults import FaultWarning
from effcc.ir.dependences import both_ways, online_axis
from effcc.ir.program import Launch, Program
from effcc.passes.in_place import _is_copy as is_copy


def gradients(run: Callable[..., Tensor], leaves: list[Tensor], upstream: Tensor) -> list[Tensor]:
    """The result of a function of `leaves`, and its gradients for them."""
    found = run(*leaves)
    return [found.detach(), *torch.autograd.grad(found, leaves, upstream)]


def trained(run: Callable[..., Tensor], leaves: list[Tensor], upstream: Tensor) -> tuple[Program, Program]:
    """The programs of the forward and backward half, which compute a function and its gradients as eager does."""
    torch.compiler.reset()
    compiled = torch.compile(run, backend="effcc")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = gradients(compiled, leaves, upstream)
    wide = [x.detach().double().requires_grad_() for x in leaves]
    exact = gradients(run, wide, upstream.double())
    check(exact, gradients(run, copy.deepcopy(leaves), upstream), found).require("attention")
    forward, backward = (p.state.program for p in programs_of(compiled))
    assert forward is not None and backward is not None
    return forward, backward


def test_attention_takes_one_pass_for_both_of_its_results() -> None:
    torch.manual_seed(0)
    hidden = torch.ones(64, 64, dtype=torch.bool)
    hidden[3], hidden[:, 60:] = False, False

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=hidden)

    leaves = [torch.randn(1, 4, 64, 32, requires_grad=True) for _ in range(3)]
    upstream = torch.randn(1, 4, 64, 32)
    forward, _ = trained(attend, leaves, upstream)
    assert sum(online_axis(k) is not None for k in forward.kernels.values()) == 1
    assert sum(any(s.reduction is not None for s in k.statements) for k in forward.kernels.values()) == 1


@pytest.mark.parametrize("heads", [4, 2])
def test_gradients_of_attention_take_one_pass(heads: int) -> None:
    """Tiles of rows and columns are computed once, for all three; `heads` of keys, which four of queries share."""
    torch.manual_seed(0)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=heads < 4)

    leaves = [torch.randn(2, 70, n, 16, requires_grad=True) for n in (4, heads, heads)]
    upstream = torch.randn(2, 4, 70, 16)
    _, backward = trained(attend, leaves, upstream)
    assert not backward.externs
    assert sum(both_ways(k) is not None for k in backward.kernels.values()) == 1
    largest = max(b.type.size for b in backward.buffers if b.space == "arena")  # type: ignore[type-var]
    assert largest < 70 * 70


def test_steps_of_a_small_network_follow_eagers() -> None:
    """Sizes that no tile divides: weights are copied by panels, at every step others."""

    def curve(compiled: bool) -> list[float]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(70, 90), nn.GELU(), nn.LayerNorm(90), nn.Linear(90, 10))
        run = torch.compile(model, backend="effcc") if compiled else model
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        inputs, wanted = torch.randn(132, 70), torch.randint(10, (132,))
        losses = []
        for _ in range(20):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(run(inputs), wanted)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    torch.compiler.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = curve(compiled=True)
    expected = curve(compiled=False)
    assert expected[-1] < expected[0] / 2
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


class Two(nn.Module):
    """Two layers and a loss."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(12, 16), nn.Linear(16, 12)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x))).square().mean()


class Checkpointed(Two):
    """The same, whose first half is computed again for the backward pass, with the same elements dropped."""

    def forward(self, x: Tensor) -> Tensor:
        def half(x: Tensor) -> Tensor:
            return nn.functional.dropout(torch.tanh(self.first(x)), 0.3, training=True)

        return self.second(checkpoint(half, x, use_reentrant=False)).square().mean()


class Clipped(torch.autograd.Function):
    """Negative numbers become 0; a gradient that is not the derivative, so that it cannot come from elsewhere."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.factor = factor
        return x.clamp(min=0) * factor

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return grad * (x > 0) * ctx.factor * 3, None


class Custom(Two):
    def forward(self, x: Tensor) -> Tensor:
        return self.second(Clipped.apply(self.first(x), 2.0)).square().mean()


Loop = Callable[[Callable[..., Tensor], Two, Tensor], None]


def once(run: Callable[..., Tensor], model: Two, x: Tensor) -> None:
    run(x).backward()


def in_parts(run: Callable[..., Tensor], model: Two, x: Tensor) -> None:
    for part in x.chunk(3):
        (run(part) / 3).backward()


def twice(run: Callable[..., Tensor], model: Two, x: Tensor) -> None:
    loss = run(x)
    loss.backward(retain_graph=True)
    loss.backward()


def half_frozen(run: Callable[..., Tensor], model: Two, x: Tensor) -> None:
    for layer in (model.first, model.second):
        layer.requires_grad_(False)
        run(x).backward()
        layer.requires_grad_(True)


def hooked(run: Callable[..., Tensor], model: Two, x: Tensor) -> None:
    handles = [
        model.first.register_forward_hook(lambda module, given, found: found * 2),
        model.second.register_full_backward_hook(lambda module, own, theirs: (own[0] * 2,)),
        model.first.weight.register_hook(lambda grad: grad * 3),
    ]
    run(x).backward()
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize(
    ("make", "loop"),
    [(Two, in_parts), (Two, twice), (Two, half_frozen), (Two, hooked), (Checkpointed, once), (Custom, once)],
)
def test_gradients_come_as_the_loop_wants_them(make: Callable[[], Two], loop: Loop) -> None:
    torch.manual_seed(0)
    model, x = make(), torch.randn(9, 12, requires_grad=True)

    def side(dtype: torch.dtype, compiled: bool) -> list[Tensor | None]:
        own, given = copy.deepcopy(model).to(dtype), x.detach().to(dtype).requires_grad_()
        torch.manual_seed(1)
        loop(torch.compile(own, backend="effcc", dynamic=False) if compiled else own, own, given)
        return [given.grad, *(p.grad for p in own.parameters())]

    torch.compiler.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("error", FaultWarning)
        found = side(torch.float32, True)
    check(side(torch.float64, False), side(torch.float32, False), found).require("gradients")


def test_a_gradient_of_a_gradient_is_refused() -> None:
    """By PyTorch, whose compiled graphs have no derivative of their backward half."""
    torch.compiler.reset()
    model, x = Two(), torch.randn(9, 12, requires_grad=True)
    (grad,) = torch.autograd.grad(torch.compile(model, backend="effcc")(x), x, create_graph=True)
    with pytest.raises(RuntimeError, match="double backward"):
        grad.square().sum().backward()


def test_losses_of_200_steps_follow_eagers() -> None:
    """On digits: convolutions and batch norms in train mode, as near to float64's curve as eager's is."""
    digits = load_digits()
    pictures, wanted = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16, torch.tensor(digits.target)
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(4), nn.GELU(),
        nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8), nn.GELU(),
        nn.Flatten(), nn.Linear(128, 10),
    )  # fmt: skip

    def curve(dtype: torch.dtype, compiled: bool) -> Tensor:
        own = copy.deepcopy(model).to(dtype)
        run = torch.compile(own, backend="effcc", dynamic=False) if compiled else own
        optimizer = torch.optim.SGD(own.parameters(), lr=0.05, momentum=0.9)
        losses = []
        for step in range(200):
            batch = torch.arange(step * 16, step * 16 + 16) % len(pictures)
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(run(pictures[batch].to(dtype)), wanted[batch])
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        assert sum(losses[-20:]) < sum(losses[:20]) / 5
        return torch.stack([*losses, *(b.mean() for b in own.buffers() if b.is_floating_point())])

    torch.compiler.reset()
    found = curve(torch.float32, True)
    check(curve(torch.float64, False), curve(torch.float32, False), found).require("losses")


def test_a_step_of_an_optimizer_is_one_program_that_writes_in_place_whatever_the_learning_rate() -> None:
    def side(compiled: bool) -> list[Tensor]:
        torch.manual_seed(0)
        parameters = [nn.Parameter(torch.randn(n, 8)) for n in (5, 9)]
        optimizer = torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.1)
        step = torch.compile(optimizer.step, backend=keep) if compiled else optimizer.step
        for number in range(6):
            optimizer.param_groups[0]["lr"] = 1e-2 / (1 + number)
            for p in parameters:
                p.grad = torch.randn(p.shape)
            step()
        return parameters

    programs: list[Program] = []

    def keep(module: Any, inputs: Any) -> Callable[..., Any]:
        known = len(_REGISTRY)
        compiled = effcc_backend(module, inputs)
        for entry in _REGISTRY[known:]:
            programs.extend(p.state.program for p in (ref() for ref in entry.programs) if p and p.state.program)
        return compiled

    torch.compiler.reset()
    found = side(compiled=True)
    torch.testing.assert_close(found, side(compiled=False), rtol=1e-5, atol=1e-6)
    assert 1 <= len(programs) <= 3  # one with the rate as a constant, one that takes it, one before there are moments
    for program in programs:
        assert all(isinstance(s, Launch) for s in program.steps)
        assert not any(is_copy(k) for k in program.kernels.values())
