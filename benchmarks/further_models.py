"""Kinds of networks beyond the zoo, in sizes that people run on a CPU; weights are random.

python -m benchmarks.zoo --further --peers eager,onnxruntime,openvino,effcc
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.models import Model, gaussian, token_ids


class Plain(nn.Module):
    """A model of transformers that gives its first tensor, `part` of it alone if that is given."""

    def __init__(self, kind: str, part: str = "", **sizes: Any) -> None:
        import transformers

        super().__init__()
        cls = getattr(transformers, kind)
        model = cls(cls.config_class(**sizes))
        self.model = getattr(model, part) if part else model

    def forward(self, *args: Tensor) -> Tensor:
        found: Tensor = self.model(*args)[0]
        return found


def twice(width_in: int, width: int) -> nn.Sequential:
    """Two 3x3 convolutions with batch norms and ReLUs."""
    layers: list[nn.Module] = []
    for n in (width_in, width):
        layers += [nn.Conv2d(n, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """Ronneberger et al., 2015: four levels, transposed convolutions, skip connections."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        widths = [width << n for n in range(4)]
        self.down = nn.ModuleList(twice(a, b) for a, b in zip([3, *widths], widths, strict=False))
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * n, n, 2, 2) for n in widths[:-1])
        self.join = nn.ModuleList(twice(2 * n, n) for n in widths[:-1])
        self.last = nn.Conv2d(width, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for n, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if n else x)
            kept.append(x)
        for n in reversed(range(len(self.up))):
            x = self.join[n](torch.cat([kept[n], self.up[n](x)], 1))
        found: Tensor = self.last(x)
        return found


class ResidualBlock(nn.Module):
    """Group norm, SiLU and a 3x3 convolution, twice."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(16, n) for n in (width_in, width))
        self.convs = nn.ModuleList(nn.Conv2d(n, width, 3, padding=1) for n in (width_in, width))
        self.skip = nn.Conv2d(width_in, width, 1) if width_in != width else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for norm, conv in zip(self.norms, self.convs, strict=True):
            y = conv(F.silu(norm(y)))
        found: Tensor = self.skip(x) + y
        return found


class Decoder(nn.Module):
    """The decoder of a latent diffusion model's autoencoder: residual blocks, nearest neighbours, 3x3 convolutions."""

    def __init__(self, widths: Sequence[int] = (128, 128, 64, 32)) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList(ResidualBlock(a, b) for a, b in zip([widths[0], *widths], widths, strict=False))
        self.wider = nn.ModuleList(nn.Conv2d(n, n, 3, padding=1) for n in widths[:-1])
        self.last = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for n, block in enumerate(self.blocks):
            x = block(x)
            if n < len(self.wider):
                x = self.wider[n](F.interpolate(x, scale_factor=2.0, mode="nearest"))
        found: Tensor = self.last(F.silu(x))
        return found


class Vocoder(nn.Module):
    """HiFi-GAN (Kong et al., 2020): transposed convolutions, then dilated ones, along time."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.first = nn.Conv1d(80, width, 7, padding=3)
        self.up = nn.ModuleList()
        self.dilated = nn.ModuleList()
        for size, stride in ((16, 8), (16, 8), (4, 2), (4, 2)):
            self.up.append(nn.ConvTranspose1d(width, width // 2, size, stride, (size - stride) // 2))
            width //= 2
            self.dilated.append(nn.ModuleList(nn.Conv1d(width, width, 3, padding=d, dilation=d) for d in (1, 3, 5)))
        self.last = nn.Conv1d(width, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for up, dilated in zip(self.up, self.dilated, strict=True):
            x = up(F.leaky_relu(x, 0.1))
            for conv in dilated.children():
                x = x + conv(F.leaky_relu(x, 0.1))
        return torch.tanh(self.last(F.leaky_relu(x, 0.1)))


def conv_silu(a: int, b: int, size: int = 1, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(a, b, size, stride, size // 2, bias=False), nn.BatchNorm2d(b), nn.SiLU())


class CrossStage(nn.Module):
    """A cross-stage partial block (Wang et al., 2020), as detectors have them."""

    def __init__(self, a: int, b: int, depth: int) -> None:
        super().__init__()
        self.one, self.two, self.join = conv_silu(a, b // 2), conv_silu(a, b // 2), conv_silu(b, b)
        self.inner = nn.ModuleList(
            nn.Sequential(conv_silu(b // 2, b // 2), conv_silu(b // 2, b // 2, 3)) for _ in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.one(x)
        for block in self.inner:
            y = y + block(y)
        found: Tensor = self.join(torch.cat([y, self.two(x)], 1))
        return found


class Detector(nn.Module):
    """The backbone and neck of a small YOLO: strided convolutions, pooling pyramids, nearest neighbours."""

    def __init__(self, w: int = 32) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_silu(3, w, 5, 2), conv_silu(w, 2 * w, 3, 2), CrossStage(2 * w, 2 * w, 1))
        self.three = nn.Sequential(conv_silu(2 * w, 4 * w, 3, 2), CrossStage(4 * w, 4 * w, 2))
        self.four = nn.Sequential(conv_silu(4 * w, 8 * w, 3, 2), CrossStage(8 * w, 8 * w, 2))
        self.narrow, self.wide = conv_silu(8 * w, 4 * w), conv_silu(16 * w, 8 * w)
        self.up, self.join = conv_silu(8 * w, 4 * w), CrossStage(8 * w, 4 * w, 1)
        self.head = nn.Conv2d(4 * w, 85 * 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        three = self.three(self.stem(x))
        four = self.four(three)
        y = [self.narrow(four)]
        for _ in range(3):
            y.append(F.max_pool2d(y[-1], 5, 1, 2))
        four = self.wide(torch.cat(y, 1))
        up = F.interpolate(self.up(four), scale_factor=2.0)
        found: Tensor = self.head(self.join(torch.cat([up, three], 1)))
        return found


class Dense(nn.Module):
    """Densely connected layers (Huang et al., 2017)."""

    def __init__(self, width: int = 64, growth: int = 32, layers: int = 6) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 7, 2, 3)
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(width + n * growth), nn.ReLU(), nn.Conv2d(width + n * growth, 4 * growth, 1),
                nn.BatchNorm2d(4 * growth), nn.ReLU(), nn.Conv2d(4 * growth, growth, 3, padding=1),
            ) for n in range(layers)
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.stem(x), 3, 2, 1)
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return x


class Temporal(nn.Module):
    """A temporal convolutional network (Bai et al., 2018): causal, dilated twofold a layer."""

    def __init__(self, width: int = 64, layers: int = 6) -> None:
        super().__init__()
        self.first = nn.Conv1d(16, width, 1)
        self.convs = nn.ModuleList(nn.Conv1d(width, width, 3, dilation=1 << n) for n in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for n, conv in enumerate(self.convs):
            x = x + F.relu(conv(F.pad(x, (2 << n, 0))))
        return x


class Mixer(nn.Module):
    """An MLP-Mixer (Tolstikhin et al., 2021) on 14 x 14 patches."""

    def __init__(self, width: int = 256, layers: int = 4) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 16, 16)
        self.layers = nn.ModuleList()
        for _ in range(layers):
            for size, wide in ((196, 128), (width, 4 * width)):
                block = nn.Sequential(nn.Linear(size, wide), nn.GELU(), nn.Linear(wide, size))
                self.layers.append(nn.ModuleList((nn.LayerNorm(width), block)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        for n, layer in enumerate(self.layers):
            norm, block = layer.children()
            y = norm(x)
            x = x + (block(y) if n % 2 else block(y.transpose(1, 2)).transpose(1, 2))
        return x.mean(1)


class Recommender(nn.Module):
    """DLRM (Naumov et al., 2019): embeddings, their products with one another, two small networks."""

    def __init__(self, tables: int = 26, width: int = 64) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.EmbeddingBag(10_000, width, mode="sum") for _ in range(tables))
        self.bottom = nn.Sequential(nn.Linear(13, 256), nn.ReLU(), nn.Linear(256, width), nn.ReLU())
        pairs = (tables + 1) * tables // 2
        self.top = nn.Sequential(nn.Linear(pairs + width, 256), nn.ReLU(), nn.Linear(256, 1), nn.Sigmoid())
        self.pairs = nn.Buffer(torch.tril_indices(tables + 1, tables + 1, -1))

    def forward(self, dense: Tensor, sparse: Tensor) -> Tensor:
        x = self.bottom(dense)
        rows = torch.stack([x, *(table(sparse[:, n]) for n, table in enumerate(self.tables))], 1)
        products = rows @ rows.transpose(1, 2)
        found: Tensor = self.top(torch.cat([x, products[:, self.pairs[0], self.pairs[1]]], 1))
        return found


def _clicks(seed: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(64, 13, generator=generator), torch.randint(0, 10_000, (64, 26, 2), generator=generator)


def _points(channels: int = 3) -> nn.Module:
    """PointNet's shared layers and its maximum (Qi et al., 2017)."""
    layers: list[nn.Module] = []
    for a, b in ((channels, 64), (64, 128), (128, 1024)):
        layers += [nn.Conv1d(a, b, 1), nn.BatchNorm1d(b), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveMaxPool1d(1), nn.Flatten(), nn.Linear(1024, 40)).eval()


FURTHER: dict[str, Model] = {
    m.name: m
    for m in (
        Model("unet", lambda: UNet().eval(), gaussian(1, 3, 128, 128)),
        Model("vae_decoder", lambda: Decoder().eval(), gaussian(1, 4, 16, 16)),
        Model("vocoder", lambda: Vocoder().eval(), gaussian(1, 80, 40)),
        Model("detector", lambda: Detector().eval(), gaussian(1, 3, 256, 256)),
        Model("densenet", lambda: Dense().eval(), gaussian(1, 3, 128, 128)),
        Model("temporal", lambda: Temporal().eval(), gaussian(4, 16, 256)),
        Model("mixer", lambda: Mixer().eval(), gaussian(1, 3, 224, 224)),
        Model("recommender", lambda: Recommender().eval(), _clicks),
        Model("pointnet", _points, gaussian(1, 3, 1024)),
        Model("segformer", lambda: Plain("SegformerForSemanticSegmentation").eval(), gaussian(1, 3, 128, 128)),
        Model("swin", lambda: Plain("SwinModel", depths=[2, 2, 2, 2]).eval(), gaussian(1, 3, 224, 224)),
        Model("efficientnet",
              lambda: Plain("EfficientNetModel", image_size=224, width_coefficient=1.0, depth_coefficient=1.0,
                            hidden_dim=1280).eval(), gaussian(1, 3, 224, 224)),
        Model("regnet", lambda: Plain("RegNetModel").eval(), gaussian(1, 3, 224, 224)),
        Model("mobilevit", lambda: Plain("MobileViTModel").eval(), gaussian(1, 3, 256, 256)),
        Model("t5_encoder", lambda: Plain("T5EncoderModel", num_layers=4).eval(), token_ids(32_000, 128)),
        Model("whisper_encoder", lambda: Plain("WhisperModel", "encoder", encoder_layers=2, d_model=384,
                                               encoder_attention_heads=6, encoder_ffn_dim=1536).eval(),
              gaussian(1, 80, 3000)),
        Model("wav2vec2", lambda: Plain("Wav2Vec2Model", num_hidden_layers=4).eval(), gaussian(1, 16_000)),
        Model("clip_vision", lambda: Plain("CLIPVisionModel", num_hidden_layers=4).eval(), gaussian(1, 3, 224, 224)),
        Model("deberta", lambda: Plain("DebertaV2Model", num_hidden_layers=4, hidden_size=384, num_attention_heads=6,
                                       intermediate_size=1536, relative_attention=True, position_buckets=256,
                                       pos_att_type=["p2c", "c2p"]).eval(), token_ids(30_000, 128)),
        Model("gru", lambda: nn.Sequential(nn.GRU(128, 256, 2, batch_first=True)).eval(), gaussian(1, 64, 128)),
    )
}  # fmt: skip
"""By name."""
