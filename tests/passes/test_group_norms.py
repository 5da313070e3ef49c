"""Group norms of images are by channel where that pays: same results, channels whole in the large kernels."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from effcc.accuracy import check
from effcc.explanation import explain
from effcc.ir.graph import Graph
from effcc.ir.parser import parse_graph
from effcc.passes.group_norms import by_channels
from effcc.target import generic

AVX2 = generic("avx2")


def normed(channels: int, groups: int, size: int, convolved: bool = True) -> Graph:
    shape = f"f32[1,{channels},{size},{size}]"
    convolution = "convolution %x, %w {stride=[1,1], padding=[0,0], dilation=[1,1], groups=1}"
    first = f"%c = {convolution if convolved else 'relu %x'} : {shape}"
    return parse_graph(
        f"graph @main(%x: {shape}, weight %w: f32[{channels},{channels},1,1]) {{\n  {first}\n"
        f"  %y = group_norm %c {{groups={groups}}} : {shape}\n  return %y\n}}"
    )


@pytest.mark.parametrize(
    ("graph", "pays"),
    [
        (normed(64, 32, 32), True),
        (normed(64, 8, 32), False),  # groups of as many channels as lanes
        (normed(64, 64, 32), False),  # a group for each channel
        (normed(64, 32, 31), False),  # small
        (normed(64, 32, 32, convolved=False), False),
    ],
)
def test_large_images_of_small_groups_after_convolutions_are_normed_by_channel(graph: Graph, pays: bool) -> None:
    changed = by_channels(graph, AVX2)
    assert any(n.attrs.get("by_channel") for n in changed.nodes) == pays
    assert pays or changed.nodes == graph.nodes


def test_statistics_are_each_groups_own() -> None:
    """Groups' numbers are of very different sizes, one has a NaN; and the large kernels see channels whole."""
    torch._dynamo.reset()
    convolution = nn.Conv2d(4, 64, 3, padding=1)
    model = nn.Sequential(convolution, nn.GroupNorm(16, 64), nn.SiLU()).eval()
    scale = 10.0 ** torch.arange(-4, 4).repeat_interleave(8)
    image = torch.randn(2, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in convolution.parameters():
            parameter *= scale.reshape(-1, *(1,) * (parameter.dim() - 1))
        convolution.bias[5] = torch.nan
        compiled = torch.compile(model, backend="effcc", fullgraph=True)
        result, eager = compiled(image), model(image)
        (program,) = explain(compiled, measure=False).programs
        report = check(model.double()(image.double()), eager, result)
    assert report.ok, str(report)
    assert eager.isnan().any(dim=(2, 3)).sum() == 2 * 4  # the group of channel 5, in both samples
    texts = [kernel.text for kernel in program.kernels if "silu" in kernel.name]
    assert texts and all("o=64" in text for text in texts)
