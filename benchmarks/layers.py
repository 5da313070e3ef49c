"""Layers and operators one by one beside eager and Inductor: where effcc is behind shows here first.

    OMP_NUM_THREADS=1 python -m benchmarks.layers [NAME...] [--dynamic] [--seconds 1] [--without-inductor]

Sizes are such that a call's fixed costs matter little. One thread, its processor time, best of many calls in one
process, each side's ten in a row, as what is alone in a program finds its data and its code at hand; a ratio below 1
means that the peer is quicker.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CALLS = 10
"""Calls of one side in a row."""

Case = tuple[Callable[..., Any], tuple[Tensor, ...]]


class _ConvNeXt(nn.Module):
    """Depthwise 7x7, layer norm over channels, two pointwise layers, residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, 1e-6)
        self.wide = nn.Linear(channels, 4 * channels)
        self.narrow = nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        return x + self.narrow(F.gelu(self.wide(y))).permute(0, 3, 1, 2)


class _Residual(nn.Module):
    """A diffusion model's residual block: group norms, SiLU, two 3x3 convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(8, channels) for _ in range(2))
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for norm, conv in zip(self.norms, self.convs, strict=True):
            y = conv(F.silu(norm(y)))
        return x + y


class _Inverted(nn.Sequential):
    """MobileNet's inverted bottleneck."""

    def __init__(self, channels: int, stride: int) -> None:
        wide = 6 * channels
        super().__init__(
            nn.Conv2d(channels, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6(),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.ReLU6(),
            nn.Conv2d(wide, channels, 1, bias=False), nn.BatchNorm2d(channels),
        )  # fmt: skip


def _attention(causal: bool) -> Callable[..., Tensor]:
    return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=causal)


def _rotary(q: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = q.shape[-1] // 2
    return q * cos + torch.cat([-q[..., half:], q[..., :half]], -1) * sin


def _normal(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, dtype=dtype)


def cases() -> dict[str, Callable[[], Case]]:
    """By name, what makes the callable and its inputs."""
    n = _normal
    double = torch.float64

    def relative(q: Tensor, k: Tensor, bias: Tensor) -> Tensor:
        return torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + bias, -1)

    return {
        "conv3x3": lambda: (nn.Conv2d(64, 64, 3, padding=1), (n(4, 64, 56, 56),)),
        "conv3x3-stride2": lambda: (nn.Conv2d(64, 128, 3, 2, 1), (n(4, 64, 56, 56),)),
        "conv7x7-stem": lambda: (nn.Conv2d(3, 64, 7, 2, 3), (n(2, 3, 224, 224),)),
        "conv1x1": lambda: (nn.Conv2d(256, 64, 1), (n(4, 256, 56, 56),)),
        "conv-groups": lambda: (nn.Conv2d(128, 128, 3, padding=1, groups=32), (n(4, 128, 28, 28),)),
        "conv-dilated": lambda: (nn.Conv2d(64, 64, 3, padding=4, dilation=4), (n(4, 64, 56, 56),)),
        "conv1d": lambda: (nn.Conv1d(80, 384, 3, padding=1), (n(1, 80, 3000),)),
        "conv1d-depthwise": lambda: (nn.Conv1d(512, 512, 31, padding=15, groups=512), (n(4, 512, 300),)),
        "conv3d": lambda: (nn.Conv3d(16, 32, 3, padding=1), (n(1, 16, 16, 56, 56),)),
        "depthwise3x3": lambda: (nn.Conv2d(192, 192, 3, padding=1, groups=192), (n(4, 192, 56, 56),)),
        "transposed4x4": lambda: (nn.ConvTranspose2d(128, 64, 4, 2, 1), (n(1, 128, 56, 56),)),
        "transposed2x2": lambda: (nn.ConvTranspose2d(128, 64, 2, 2), (n(1, 128, 56, 56),)),
        "transposed3x3": lambda: (nn.ConvTranspose2d(128, 64, 3, 2, 1, 1), (n(1, 128, 56, 56),)),
        "transposed1d": lambda: (nn.ConvTranspose1d(256, 128, 16, 8, 4), (n(1, 256, 300),)),
        "convnext": lambda: (_ConvNeXt(96), (n(2, 96, 56, 56),)),
        "diffusion-residual": lambda: (_Residual(64), (n(2, 64, 64, 64),)),
        "inverted": lambda: (_Inverted(24, 1), (n(4, 24, 56, 56),)),
        "inverted-stride2": lambda: (_Inverted(24, 2), (n(4, 24, 56, 56),)),
        "maxpool": lambda: (nn.MaxPool2d(3, 2, 1), (n(4, 64, 112, 112),)),
        "avgpool": lambda: (nn.AvgPool2d(2), (n(4, 64, 112, 112),)),
        "adaptive-pool": lambda: (nn.AdaptiveAvgPool2d(7), (n(4, 64, 112, 112),)),
        "bilinear-up": lambda: (nn.Upsample(scale_factor=2, mode="bilinear"), (n(2, 64, 64, 64),)),
        "nearest-up": lambda: (nn.Upsample(scale_factor=2), (n(2, 64, 64, 64),)),
        "pixel-shuffle": lambda: (nn.PixelShuffle(2), (n(2, 256, 64, 64),)),
        "batch-norm": lambda: (nn.BatchNorm2d(64), (n(4, 64, 112, 112),)),
        "group-norm": lambda: (nn.GroupNorm(8, 64), (n(4, 64, 112, 112),)),
        "instance-norm": lambda: (nn.InstanceNorm2d(64), (n(4, 64, 112, 112),)),
        "layer-norm": lambda: (nn.LayerNorm(768), (n(1024, 768),)),
        "rms-norm": lambda: (nn.RMSNorm(768), (n(1024, 768),)),
        "softmax": lambda: (nn.Softmax(-1), (n(1024, 1000),)),
        "softmax-first": lambda: (nn.Softmax(0), (n(1000, 1024),)),
        "log-softmax": lambda: (nn.LogSoftmax(-1), (n(64, 30000),)),
        "cross-entropy": lambda: (F.cross_entropy, (n(64, 30000), torch.randint(0, 30000, (64,)))),
        "gelu": lambda: (nn.GELU(), (n(1024, 3072),)),
        "gelu-tanh": lambda: (nn.GELU("tanh"), (n(1024, 3072),)),
        "silu": lambda: (nn.SiLU(), (n(1024, 3072),)),
        "mish": lambda: (nn.Mish(), (n(1024, 3072),)),
        "exp-log": lambda: (lambda x: (x.exp() + 1).log(), (n(1024, 3072),)),
        "sin-cos": lambda: (lambda x: x.sin() + x.cos(), (n(1024, 3072),)),
        "pow": lambda: (lambda x: x.abs() ** 1.7, (n(1024, 3072),)),
        "add-relu": lambda: (lambda x, y: F.relu(x + y), (n(1024, 3072), n(1024, 3072))),
        "transpose": lambda: (lambda x: x.transpose(0, 1).contiguous() + 1, (n(2048, 2048),)),
        "permute4": lambda: (lambda x: x.permute(0, 2, 3, 1).contiguous(), (n(4, 64, 112, 112),)),
        "heads": lambda: (lambda x: x.view(4, 512, 12, 64).transpose(1, 2).contiguous(), (n(4, 512, 768),)),
        "cat-columns": lambda: (lambda x, y: torch.cat([x, 2 * y], 1), (n(1024, 1536), n(1024, 1536))),
        "cat-rows": lambda: (lambda x, y: torch.cat([x, 2 * y], 0), (n(1024, 1536), n(1024, 1536))),
        "cat-channels": lambda: (lambda x, y: torch.cat([x, F.relu(y)], 1), (n(2, 64, 112, 112), n(2, 64, 112, 112))),
        "stack": lambda: (lambda x, y: torch.stack([x, y], -1), (n(1024, 1024), n(1024, 1024))),
        "split-mul": lambda: (F.glu, (n(1024, 3072),)),
        "pad": lambda: (lambda x: F.pad(x, (1, 1, 1, 1)), (n(4, 64, 112, 112),)),
        "pad-reflect": lambda: (nn.ReflectionPad2d(3), (n(2, 64, 112, 112),)),
        "roll": lambda: (lambda x: x.roll((3, 3), (1, 2)), (n(2, 56, 56, 192),)),
        "flip": lambda: (lambda x: x.flip(-1), (n(1024, 3072),)),
        "where": lambda: (lambda x, m: torch.where(m > 0, x, -1e9), (n(1024, 3072), n(1024, 3072))),
        "triu": lambda: (torch.triu, (n(2048, 2048),)),
        "embedding": lambda: (nn.Embedding(30000, 768), (torch.randint(0, 30000, (8, 512)),)),
        "gather": lambda: (lambda x, i: x.gather(1, i), (n(1024, 3072), torch.randint(0, 3072, (1024, 3072)))),
        "index-select": lambda: (lambda x, i: x[:, i], (n(1024, 3072), torch.randint(0, 3072, (1024,)))),
        "scatter-add": lambda: (
            lambda x, i, s: x.index_add(0, i, s),
            (n(1000, 256), torch.randint(0, 1000, (8000,)), n(8000, 256))),
        "one-hot": lambda: (lambda i: F.one_hot(i, 1000).float(), (torch.randint(0, 1000, (2048,)),)),
        "sum-rows": lambda: (lambda x: x.sum(-1), (n(2048, 2048),)),
        "sum-columns": lambda: (lambda x: x.sum(0), (n(2048, 2048),)),
        "sum-all": lambda: (torch.sum, (n(2048, 2048),)),
        "mean-var": lambda: (lambda x: torch.var_mean(x, -1), (n(2048, 2048),)),
        "max-rows": lambda: (lambda x: x.max(-1), (n(2048, 2048),)),
        "argmax": lambda: (lambda x: x.argmax(-1), (n(2048, 2048),)),
        "argmax-first": lambda: (lambda x: x.argmax(1), (n(2, 21, 256, 256),)),
        "cumsum": lambda: (lambda x: x.cumsum(-1), (n(1024, 2048),)),
        "cumsum-first": lambda: (lambda x: x.cumsum(0), (n(2048, 1024),)),
        "norm": lambda: (lambda x: F.normalize(x, dim=-1), (n(2048, 1024),)),
        "cosine": lambda: (lambda x, y: F.cosine_similarity(x, y), (n(2048, 1024), n(2048, 1024))),
        "cdist": lambda: (torch.cdist, (n(512, 64), n(512, 64))),
        "linear-gelu": lambda: (nn.Sequential(nn.Linear(768, 3072), nn.GELU()), (n(256, 768),)),
        "linear-odd": lambda: (nn.Linear(777, 1111), (n(203, 777),)),
        "linear-7": lambda: (nn.Linear(1024, 4096), (n(7, 1024),)),
        "linear-1": lambda: (nn.Linear(2048, 8192), (n(1, 2048),)),
        "matmul": lambda: (torch.matmul, (n(512, 512), n(512, 512))),
        "matmul-transposed": lambda: (lambda a, b: a @ b.T, (n(512, 512), n(512, 512))),
        "bmm": lambda: (torch.bmm, (n(24, 128, 64), n(24, 64, 128))),
        "matvec": lambda: (torch.mv, (n(2048, 2048), n(2048))),
        "outer": lambda: (torch.outer, (n(2048), n(2048))),
        "einsum": lambda: (lambda a, b: torch.einsum("bhid,bhjd->bhij", a, b), (n(2, 12, 256, 64), n(2, 12, 256, 64))),
        "bilinear": lambda: (nn.Bilinear(64, 64, 32), (n(256, 64), n(256, 64))),
        "attention": lambda: (_attention(False), tuple(n(2, 12, 256, 64) for _ in range(3))),
        "attention-causal": lambda: (_attention(True), tuple(n(2, 12, 512, 64) for _ in range(3))),
        "attention-bias": lambda: (relative, (n(2, 12, 256, 64), n(2, 12, 256, 64), n(12, 256, 256))),
        "rotary": lambda: (_rotary, (n(4, 16, 512, 64), n(512, 64), n(512, 64))),
        "linear-f64": lambda: (nn.Sequential(nn.Linear(512, 512), nn.ReLU()).double(), (n(256, 512, dtype=double),)),
        "matmul-f64": lambda: (torch.matmul, (n(384, 384, dtype=double), n(384, 384, dtype=double))),
        "complex-mul": lambda: (
            lambda a, b: torch.view_as_real(torch.view_as_complex(a) * torch.view_as_complex(b)),
            (n(1024, 512, 2), n(1024, 512, 2))),
        "int-sum": lambda: (lambda x: (x * 3 + 1).sum(-1), (torch.randint(0, 100, (2048, 2048)),)),
        "u8-image": lambda: (
            lambda x: (x.float() / 255 - 0.45) / 0.22,
            (torch.randint(0, 256, (4, 3, 512, 512), dtype=torch.uint8),)),
        "sort-topk": lambda: (lambda x: x.topk(10, -1), (n(256, 2048),)),
    }  # fmt: skip


def _compiled(run: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    torch_compile: Any = torch.compile  # whose annotations lack isolate_recompiles
    found: Callable[..., Any] = torch_compile(run, isolate_recompiles=True, **options)
    return found


def best_times(sides: dict[str, Callable[..., Any]], args: tuple[Tensor, ...], seconds: float) -> dict[str, float]:
    """Milliseconds of each side's best call, in turn until the time is over."""
    best = dict.fromkeys(sides, math.inf)
    with torch.no_grad():
        for run in sides.values():
            run(*args)
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            for name, run in sides.items():
                for _ in range(CALLS):
                    before = time.thread_time()
                    run(*args)
                    best[name] = min(best[name], 1e3 * (time.thread_time() - before))
    return best


def main() -> None:
    """Race the cases named, or all."""
    known = cases()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(known))
    parser.add_argument("--dynamic", action="store_true", help="compile with run-time sizes")
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--without-inductor", action="store_true")
    given = parser.parse_args()
    if unknown := set(given.names) - set(known):
        parser.error(f"no layer is called {', '.join(sorted(unknown))}; known are {', '.join(known)}")
    torch.set_num_threads(1)
    print("| ms, best | eager | Inductor | effcc | against eager | against Inductor |\n|---|---|---|---|---|---|")
    for name in given.names or known:
        torch.manual_seed(0)
        run, args = known[name]()
        sides = {"eager": run, "effcc": _compiled(run, backend="effcc", dynamic=given.dynamic)}
        if not given.without_inductor:
            sides["inductor"] = _compiled(run, dynamic=given.dynamic, options={"freezing": not given.dynamic})
        best = best_times(sides, args, given.seconds)
        peer = best.get("inductor", math.nan)
        print(f"| {name} | {best['eager']:.3f} | {peer:.3f} | {best['effcc']:.3f} "
              f"| {best['eager'] / best['effcc']:.2f} | {peer / best['effcc']:.2f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
