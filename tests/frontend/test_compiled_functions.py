"""Functions that people write, compiled through `torch.compile`, give what eager gives: values and strides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import effcc


def g(*shape: int) -> Tensor:
    """Normal numbers, the same at every call."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def i(high: int, *shape: int) -> Tensor:
    """Integers from 0 to `high - 1`."""
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(high))


def assign(x: Tensor) -> Tensor:
    y = x.clone()
    y[1] = 0
    y[:, 2] = y[:, 2] * 2
    y[x > 1] = 5.0
    y[..., -1] += 1
    return y


def activations(x: Tensor) -> Any:
    names = "mish elu selu celu softplus hardswish hardsigmoid hardtanh leaky_relu logsigmoid softsign tanhshrink relu6"
    return [getattr(F, name)(x) for name in names.split()]


def losses(x: Tensor, y: Tensor) -> Any:
    return (
        F.mse_loss(x, y), F.l1_loss(x, y), F.smooth_l1_loss(x, y), F.huber_loss(x, y), F.cosine_similarity(x, y),
        F.binary_cross_entropy_with_logits(x, y.sigmoid()), F.kl_div(x.log_softmax(-1), y.softmax(-1), reduction="sum"),
    )  # fmt: skip


NOT_A_NUMBER = torch.tensor([1.0, float("nan"), float("inf")])

CASES: dict[str, tuple[Callable[..., Any], tuple[Tensor, ...]]] = {
    "einsum": (lambda a, b: torch.einsum("bij,bkj->bik", a, b), (g(2, 3, 4), g(2, 5, 4))),
    "nearest": (lambda x: F.interpolate(x, scale_factor=2), (g(1, 2, 3, 4),)),
    "bilinear": (lambda x: F.interpolate(x, size=(5, 7), mode="bilinear"), (g(1, 2, 3, 4),)),
    "bicubic": (lambda x: F.interpolate(x, size=(5, 7), mode="bicubic"), (g(1, 2, 3, 4),)),
    "grid_sample": (lambda x, y: F.grid_sample(x, y.tanh(), align_corners=False), (g(1, 2, 5, 5), g(1, 4, 4, 2))),
    "pixel_shuffle": (lambda x: F.pixel_shuffle(x, 2), (g(1, 8, 3, 3),)),
    "roll": (lambda x: torch.roll(x, (1, -2), (0, 1)), (g(4, 5),)),
    "im2col": (lambda x: F.unfold(x, 2, padding=1), (g(1, 2, 4, 4),)),
    "windows": (lambda x: x.unfold(1, 3, 2), (g(2, 9),)),
    "reflect": (lambda x: F.pad(x, (1, 2, 1, 1), mode="reflect"), (g(1, 2, 4, 5),)),
    "replicate": (lambda x: F.pad(x, (1, 2, 1, 1), mode="replicate"), (g(1, 2, 4, 5),)),
    "circular": (lambda x: F.pad(x, (1, 2, 1, 1), mode="circular"), (g(1, 2, 4, 5),)),
    "glu": (F.glu, (g(2, 6),)),
    "activations": (activations, (g(3, 4),)),
    "prelu": (F.prelu, (g(2, 3, 4), g(3))),
    "cross_entropy": (F.cross_entropy, (g(4, 5), i(5, 4))),
    "losses": (losses, (g(4, 5), g(4, 5) + 1)),
    "instance_norm": (F.instance_norm, (g(2, 4, 3, 3),)),
    "local_response_norm": (lambda x: F.local_response_norm(x, 2), (g(2, 4, 3, 3),)),
    "normalize": (lambda x: F.normalize(x, dim=1), (g(2, 4),)),
    "adaptive_max_pool": (lambda x: F.adaptive_max_pool2d(x, 2), (g(1, 2, 5, 5),)),
    "reduced_0d": (lambda x: (x.sum(0), x.amax(-1, keepdim=True), x.logsumexp(0)), (g(),)),
    "views_of_externs": (lambda x: [v.squeeze(1).t() for v in x.topk(2)], (g(3, 1, 5),)),
    "externs_of_what_is_viewed": (lambda x: ((x + 1).view(-1), (x + 1).sort(1)[0]), (g(3, 5),)),
    "top_k": (lambda x: torch.topk(x, 2), (g(3, 5),)),
    "arg_sort": (lambda x: (x * 2).argsort(-1) + 1, (g(3, 5),)),
    "one_hot": (lambda k: F.one_hot(k, 5), (i(5, 4),)),
    "running": (lambda x: (x.cumsum(0), x.cumprod(1), x.logcumsumexp(1), x.cummax(1)), (g(3, 4),)),
    "deviations": (lambda x: (x.std(1), torch.var_mean(x, 1), torch.std_mean(x), x.logsumexp(1)), (g(3, 4),)),
    "triangles": (lambda x: (x.tril(), x.triu(1), torch.diag(x), torch.diag_embed(x)), (g(4, 4),)),
    "masks": (lambda x: (x.masked_fill(x > 0, 1.0), torch.where(x > 0, x, 0.0)), (g(4, 4),)),
    "assignment": (assign, (g(4, 4),)),
    "advanced_indexing": (lambda x, k: x[k, :, k], (g(4, 5, 4), i(4, 3))),
    "mesh_grid": (lambda x: torch.stack(torch.meshgrid(x, x + 1, indexing="ij")), (g(3),)),
    "kronecker": (torch.kron, (g(2, 2), g(2, 3))),
    "distances": (torch.cdist, (g(3, 4), g(5, 4))),
    "integers": (lambda a, b: (a // b, a % b, a << 1, a & b, a**2, ~a, a / b, -a), (i(9, 5), i(4, 5) + 1)),
    "dtypes": (lambda x: (x.half() + 1, x.int(), x.bool(), x.double() * 2, x.to(torch.bfloat16)), (g(4),)),
    "attention_layer": (nn.MultiheadAttention(8, 2, batch_first=True).eval(), (g(2, 5, 8),) * 3),
    "encoder_layer": (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval(), (g(2, 5, 8),)),
    "conv1d_same": (lambda x, w: F.conv1d(x, w, padding="same"), (g(1, 2, 7), g(3, 2, 3))),
    "conv3d": (F.conv3d, (g(1, 2, 4, 4, 4), g(3, 2, 2, 2, 2))),
    "transposed": (
        lambda x, w: F.conv_transpose2d(x, w, stride=2, padding=1, output_padding=1), (g(1, 2, 4, 4), g(2, 3, 3, 3))
    ),
    "channels_last": (
        lambda x, w: F.conv2d(x, w).relu(), (g(1, 3, 6, 6).to(memory_format=torch.channels_last), g(4, 3, 3, 3))
    ),
    "scatter": (lambda x, k: torch.zeros(3, 4).scatter_add(1, k, x[:, :2]), (g(3, 4), i(4, 3, 2))),
    "index_add": (lambda x, k, y: (x.index_add(0, k, y), x.index_copy(0, k, y)), (g(4, 3), i(4, 1), g(1, 3))),
    "not_a_number": (lambda x: (x.nan_to_num(), x.isnan(), x.isfinite(), torch.nansum(x)), (NOT_A_NUMBER,)),
    "half_softmax": (lambda x: x.softmax(-1, dtype=torch.float32), (g(3, 4).half(),)),
    "special": (lambda x: (torch.special.expit(x), torch.logit(x.sigmoid()), torch.sinc(x), torch.digamma(x)), (g(4),)),
    "inverse": (lambda x: torch.linalg.inv(x + 3 * torch.eye(3)), (g(3, 3),)),
    "bits": (lambda x: x.view(torch.int32), (g(4),)),
    "repeats": (lambda x: (x.repeat_interleave(2, 0), x.repeat(2, 2), x.tile(3)), (g(3, 2),)),
    "aliases": (lambda x: (x, x.t(), x + 1, x.expand(2, 3, 4)), (g(3, 4),)),
    "other_outputs": (lambda x: (x.sum(), 3, None, "a"), (g(3),)),
    "nothing": (lambda x: (x[5:2] * 2, x[:0].sum(), torch.cat([x[:0], x])), (g(7),)),
    "many": (lambda a, b: torch._foreach_add([a, b], [b, a]), (g(3), g(3) + 1)),
    "random": (lambda x: (torch.bernoulli(x.sigmoid()), x + torch.randn(3), F.dropout(x, 0.5)), (g(3),)),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", list(CASES))
def test_a_compiled_function_gives_what_eager_gives(name: str) -> None:
    function, arguments = CASES[name]
    torch._dynamo.reset()
    with torch.no_grad():
        torch.manual_seed(0)
        expected = pytree.tree_leaves(function(*(a.clone() for a in arguments)))
        torch.manual_seed(0)
        compiled: Any = torch.compile(function, backend="effcc", fullgraph=True)
        got = pytree.tree_leaves(compiled(*(a.clone() for a in arguments)))
    for result, wanted in zip(got, expected, strict=True):
        if not isinstance(wanted, Tensor):
            assert result == wanted
            continue
        half = wanted.dtype in (torch.float16, torch.bfloat16)
        tolerance = {"rtol": 1e-2 if half else 1e-4, "atol": 1e-2 if half else 1e-5}
        torch.testing.assert_close(result, wanted, equal_nan=True, **tolerance)
        if wanted.numel() > 1 and 0 not in wanted.stride():
            assert result.stride() == wanted.stride()


def write_complex(z: Tensor, w: Tensor) -> Tensor:
    old = z.clone()
    z.copy_(w)
    w.mul_(old)
    return z.abs()


CARRIED: dict[str, tuple[Callable[..., Any], tuple[Tensor, ...]]] = {
    "spectrum": (lambda x: torch.fft.rfft(x * 2).abs() + 1, (g(4, 6),)),
    "parts": (lambda z: (z.real + 1, z.imag * 2, z.conj().imag, z.angle()), (torch.view_as_complex(g(3, 4, 2)),)),
    "copies": (lambda z: (z.clone(), z.t().contiguous(), z * 2j, z), (torch.view_as_complex(g(3, 4, 2)),)),
    "constant": (lambda z: z @ torch.full((4, 2), 1 - 2j), (torch.view_as_complex(g(3, 4, 2)),)),
    "written": (write_complex, (torch.view_as_complex(g(3, 4, 2)), torch.view_as_complex(g(4, 3, 2)).t())),
    "negated": (lambda x: x + 1, (torch.view_as_complex(g(3, 4, 2)).conj().imag,)),
    "small_floats": (lambda x: x.to(torch.float8_e4m3fn).float() + 1, (g(4),)),
    "unsigned": (lambda x: x.to(torch.uint32).long() + 1, (i(9, 5),)),
}


@pytest.mark.parametrize("name", list(CARRIED))
def test_dtypes_that_no_kernel_computes_on_pass_through_pytorch(name: str) -> None:
    function, arguments = CARRIED[name]
    theirs, ours = (tuple(a.detach().clone(memory_format=torch.preserve_format) for a in arguments) for _ in range(2))
    if name == "negated":
        theirs = ours = arguments
    torch._dynamo.reset()
    with torch.no_grad():
        expected = function(*theirs)
        got = torch.compile(function, backend="effcc", fullgraph=True)(*ours)
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(ours, theirs)


def causal(x: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(x, x, x, is_causal=True)


DYNAMIC: dict[str, tuple[Callable[..., Any], list[tuple[Any, ...]]]] = {
    "pointwise": (lambda x: x * 2 + 1, [(g(3, 4),), (g(5, 7),)]),
    "product": (lambda a, b: a @ b, [(g(3, 5), g(5, 6)), (g(7, 9), g(9, 2))]),
    "softmax": (lambda x: (x.softmax(-1), x.log_softmax(0)), [(g(3, 5),), (g(4, 9),)]),
    "layer_norm": (lambda x: F.layer_norm(x, (x.shape[-1],)), [(g(3, 8),), (g(5, 9),)]),
    "group_norm": (lambda x: F.group_norm(x, 2), [(g(2, 4, 5, 5),), (g(3, 6, 7, 2),)]),
    "attention": (causal, [(g(2, 2, 5, 8),), (g(2, 3, 9, 4),)]),
    "convolution": (
        lambda x, w: F.conv2d(x, w, padding=1),
        [(g(1, 3, 8, 8), g(4, 3, 3, 3)), (g(2, 3, 5, 9), g(2, 3, 3, 3))],
    ),
    "number": (lambda x, n: x * n + torch.full((n,), 2.0).sum(), [(g(3), 5), (g(3), 6), (g(4), 7)]),
    "float": (lambda x, s: x * s, [(g(3), 0.5), (g(3), 0.7), (g(4), 0.9)]),
    "slices": (lambda x: (x[1:], x[::2], x[-2:], x[: x.shape[0] // 2], x.tril()), [(g(5, 3),), (g(9, 3),)]),
    "reductions": (lambda x: (x.mean(), x.var(1), x.cumsum(0), x.argmax(1)), [(g(5, 3),), (g(9, 4),)]),
    "recurrence": (nn.GRU(4, 3).eval(), [(g(5, 2, 4),), (g(9, 3, 4),)]),
    "pooling": (lambda x: F.max_pool2d(x, 2), [(g(1, 2, 8, 8),), (g(1, 2, 12, 10),)]),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(DYNAMIC))
def test_one_program_serves_many_sizes(name: str, request: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "attention":  # g++ optimizes its many borders for ten seconds, those of small tiles in codegen's tests
        monkeypatch.setenv("CXX", request.getfixturevalue("quick_compiler"))
    function, calls = DYNAMIC[name]
    torch._dynamo.reset()
    compiled: Any = torch.compile(function, backend="effcc", fullgraph=True, dynamic=True)
    with torch.no_grad():
        for arguments in calls:
            torch.testing.assert_close(compiled(*arguments), function(*arguments), rtol=1e-4, atol=1e-5)


def transposed(x: Tensor) -> Tensor:
    return (x * 2).transpose(0, 1).as_strided((3, 2, 2), (1, 3, 1))


def before_a_slice(x: Tensor) -> Tensor:
    return (x * 2)[1:].as_strided((2, 3), (3, 1), 0)


def at_the_slice(x: Tensor) -> Tensor:
    return (x * 2)[1:].as_strided((2, 3), (3, 1))


def of_an_input(x: Tensor) -> Tensor:
    return x.t().as_strided((2, 3), (3, 2))


def expanded(x: Tensor) -> Tensor:
    return (x + 1).permute(1, 0).unsqueeze(1).expand(-1, 3, -1).as_strided((2, 2), (4, 1), 1)


@pytest.mark.parametrize("x", [g(4, 6), g(6, 4).t(), g(5, 6)[1:]], ids=["row-major", "transposed", "slice"])
@pytest.mark.parametrize("function", [transposed, before_a_slice, at_the_slice, of_an_input, expanded])
def test_as_strided_reads_the_memory_that_eager_would(function: Callable[[Tensor], Tensor], x: Tensor) -> None:
    with torch.no_grad():
        expected, got = function(x), torch.compile(function, backend="effcc", fullgraph=True)(x)
    assert torch.equal(got, expected)


def test_a_call_that_eager_refuses_is_refused() -> None:
    torch._dynamo.reset()
    compiled: Any = torch.compile(lambda x, k, y: x.index_add(0, k, y), backend="effcc", fullgraph=True)
    with pytest.raises(RuntimeError, match="shape"), torch.no_grad():
        compiled(g(3, 2), torch.tensor([0, 1]), g(2))


@pytest.mark.filterwarnings("error::effcc.errors.FaultWarning")
@pytest.mark.parametrize("call", [
    lambda x, w, i: F.linear(x.double(), w),
    lambda x, w, i: x.half() @ w,
    lambda x, w, i: x[0].double() @ w[0],
    lambda x, w, i: x.index_put((i,), w[:1].double()),
    lambda x, w, i: x.index_put((i, i), w[0, 0].double()),
])  # fmt: skip
def test_operands_of_unlike_dtypes_are_refused_by_eagers_kernel(call: Callable[..., Tensor]) -> None:
    torch._dynamo.reset()
    compiled: Any = torch.compile(call, backend="effcc", fullgraph=True)
    with pytest.raises(RuntimeError, match=r"same dtype|dtypes match|expected scalar type"), torch.no_grad():
        compiled(g(3, 3), g(3, 3), torch.tensor([1]))


@pytest.mark.parametrize("scale", [3.7, -2.5, 0.5])
def test_a_product_of_integers_is_scaled_by_a_float_without_its_fraction(scale: float) -> None:
    def scaled(x: Tensor) -> Tensor:
        return torch.addcmul(x, x, x, value=scale)

    x = torch.arange(-3, 5)
    with torch.no_grad():
        compiled: Any = torch.compile(scaled, backend="effcc", fullgraph=True)
        assert torch.equal(compiled(x), scaled(x))


def test_an_integer_convolution_with_a_bias_of_another_dtype_is_left_to_pytorch() -> None:
    def convolve(x: Tensor, w: Tensor, bias: Tensor) -> Tensor:
        return F.conv1d(x, w, bias, padding="same")  # without it, eager looks at the bias

    given = torch.arange(8, dtype=torch.int32).view(1, 1, 8), torch.ones(2, 1, 2).int(), torch.tensor([1, 2])
    with torch.no_grad():
        compiled: Any = torch.compile(convolve, backend="effcc", fullgraph=True)
        got = compiled(*given)
    assert torch.equal(got, convolve(*given)) and got.dtype == torch.int32


def test_an_empty_tensor_with_permuted_memory_is_native() -> None:
    def fill(x: Tensor) -> Tensor:
        return torch.empty_permuted((2, 3, 4), (2, 0, 1)).copy_(x) + 1

    with torch.no_grad():
        compiled: Any = torch.compile(fill, backend="effcc", fullgraph=True)
        got = compiled(g(2, 3, 4))
    assert torch.equal(got, fill(g(2, 3, 4))) and got.stride() == fill(g(2, 3, 4)).stride()
    assert not effcc.stats(compiled).externs
