"""A random case of a seed: small modules of odd sizes, as chains of blocks that networks are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random

from effcc.fuzz.modules.case import Block, Case
from effcc.fuzz.modules.storing import storing

ODD = (1, 3, 5, 7, 12, 17, 24, 33, 50)
EVEN = (8, 16, 32, 64)
ACTIVATIONS = ("F.relu(x)", "F.gelu(x)", "F.silu(x)", "torch.tanh(x)", "F.relu6(x)", "F.hardswish(x)", "x * 0.5")
BATCHES = ((2, 5), (3, 1), (3, 17, 1), (5, 40), (2, 0, 3), (4, 300), (1, 1), (7, 8, 9))
CHECKS = ("copies", "package", "training", "damage")


@dataclass
class _Sketch:
    """A chain being drawn: the stream's kind (`tokens` [n, t, width], `image`, `series`), its width, what it has."""

    random: Random
    widths: tuple[int, ...]
    width: int
    kind: str
    blocks: list[Block] = field(default_factory=list)
    names: int = 0
    tied: str = ""

    def name(self) -> str:
        """A name that no layer has."""
        self.names += 1
        return "abcdefghijklmnopqrstuvwxyz"[(self.names - 1) % 26] + ("" if self.names <= 26 else str(self.names))

    def add(self, layers: dict[str, str], *lines: str, width: int | None = None) -> None:
        """A block; `width`, where it gives another."""
        self.blocks.append(Block(tuple(layers.items()), lines, width is not None and width != self.width))
        self.width = self.width if width is None else width

    def pick(self) -> int:
        return self.random.choice(self.widths)

    def activation(self) -> str:
        return self.random.choice(ACTIVATIONS)

    def bias(self) -> str:
        return "" if self.random.random() < 0.7 else ", bias=False"


def draw(seed: int) -> Case:
    """The case of a seed."""
    random = Random(seed)
    widths = random.choice((ODD, EVEN, EVEN, ODD + EVEN))
    kind = random.choice(("tokens", "tokens", "tokens", "ids", "image", "series"))
    width = random.choice(widths)
    s = _Sketch(random, widths, width, "tokens" if kind == "ids" else kind)
    given = _input(s, kind)
    for _ in range(random.choice((1, 1, 1, 2))):
        _block(s)
    if s.kind != "tokens" and random.random() < 0.5:
        _head(s)
    if s.tied and random.random() < 0.5 and s.width == s.widths[0]:
        s.add({}, f"x = F.linear(x, self.{s.tied}.weight)")
    dtype = random.choice(("float32",) * 5 + ("bfloat16", "float64"))
    given = given if kind == "ids" or dtype == "float32" else f"({given}).to(torch.{dtype})"
    linear = any("nn.Linear" in made for b in s.blocks for _, made in b.layers)
    case = Case(
        seed, tuple(s.blocks), given, dtype, _setup(s, dtype), storing(random, linear), random.choice(BATCHES),
        random.choice((None, None, True, False)), random.choice(("host", "host", "host", "avx2", "scalar")),
        tuple(c for c in CHECKS if random.random() < 0.3), random.choice(("copy", "data", "numpy", "load")),
    )  # fmt: skip
    return replace(case, batches=case.batches[:2]) if case.dynamic is False else case


def _input(s: _Sketch, kind: str) -> str:
    random, length = s.random, s.random.choice((1, 3, 4, 7))
    match kind:
        case "ids":
            rows = random.choice((2, 9, 40))
            name = s.name()
            s.tied = name
            s.add({name: f"nn.Embedding({rows}, {s.width})"}, f"x = self.{name}(x)")
            s.blocks[-1] = replace(s.blocks[-1], needed=True)
            return f"torch.randint(0, {rows}, (n, {length}), generator=generator)"
        case "tokens":
            shape = random.choice((f"n, {s.width}", f"n, {length}, {s.width}"))
        case "image":
            size = random.choice(((5, 5), (8, 8), (7, 9), (14, 14)))
            shape = f"n, {s.width}, {size[0]}, {size[1]}"
            if random.random() < 0.3:
                drawn = f"torch.randn({shape}, generator=generator)"
                return f"{drawn}.contiguous(memory_format=torch.channels_last)"
        case _:
            shape = f"n, {s.width}, {random.choice((6, 9, 16))}"
    return f"torch.randn({shape}, generator=generator)"


def _block(s: _Sketch) -> None:
    makers: dict[str, tuple[Callable[[_Sketch], None], ...]] = {
        "tokens": (_linear, _linear, _mlp, _attention, _gated, _recurrent, _shared, _normed, _experts),
        "image": (_convolution, _convolution, _depthwise, _residual, _pointwise),
        "series": (_convolution, _depthwise, _residual),
    }
    s.random.choice(makers[s.kind])(s)


def _linear(s: _Sketch) -> None:
    a, width = s.name(), s.pick()
    s.add({a: f"nn.Linear({s.width}, {width}{s.bias()})"}, f"x = self.{a}(x)", f"x = {s.activation()}", width=width)


def _mlp(s: _Sketch) -> None:
    a, b, hidden = s.name(), s.name(), s.pick()
    layers = {a: f"nn.Linear({s.width}, {hidden})", b: f"nn.Linear({hidden}, {s.width}{s.bias()})"}
    s.add(layers, "skip = x", f"x = self.{a}(x)", f"x = {s.activation()}", f"x = skip + self.{b}(x)")


def _gated(s: _Sketch) -> None:
    a, b, c, hidden = s.name(), s.name(), s.name(), s.pick()
    layers = dict.fromkeys((a, b), f"nn.Linear({s.width}, {hidden}, bias=False)")
    s.add({**layers, c: f"nn.Linear({hidden}, {s.width})"}, f"x = self.{c}(F.silu(self.{a}(x)) * self.{b}(x))")


def _attention(s: _Sketch) -> None:
    q, k, v, o = (s.name() for _ in range(4))
    heads = s.random.choice([h for h in (1, 2, 4) if s.width % h == 0])
    split = f".unflatten(-1, ({heads}, {s.width // heads})).transpose(-3, -2)"
    causal = s.random.choice((", is_causal=True", ""))
    s.add(
        {n: f"nn.Linear({s.width}, {s.width}{s.bias()})" for n in (q, k, v, o)},
        "skip = x",
        "x = x if x.ndim == 3 else x[:, None]",
        f"q, k, v = (m(x){split} for m in (self.{q}, self.{k}, self.{v}))",
        f"x = F.scaled_dot_product_attention(q, k, v{causal}).transpose(-3, -2).flatten(-2)",
        f"x = skip + self.{o}(x).reshape(skip.shape)",
    )


def _recurrent(s: _Sketch) -> None:
    a, b = s.name(), s.name()
    layers = {a: f"nn.Linear({s.width}, {4 * s.width})", b: f"nn.Linear({s.width}, {4 * s.width}, bias=False)"}
    s.add(
        layers,
        "h = c = torch.zeros_like(x)",
        "for _ in range(2):",
        f"    i, f, g, o = (self.{a}(x) + self.{b}(h)).chunk(4, -1)",
        "    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)",
        "    h = torch.sigmoid(o) * torch.tanh(c)",
        "x = h",
    )


def _shared(s: _Sketch) -> None:
    a, b = s.name(), s.name()
    layers = dict.fromkeys((a, b), f"nn.Linear({s.width}, {s.width})")
    tied = s.random.random() < 0.7
    s.add({**layers, **({f"{b}.weight": f"self.{a}.weight"} if tied else {})},
          f"x = self.{a}(torch.tanh(self.{b}(self.{a}(x))))")  # fmt: skip


def _normed(s: _Sketch) -> None:
    a, b = s.name(), s.name()
    norm = s.random.choice(("nn.LayerNorm", "nn.RMSNorm"))
    s.add({a: f"{norm}({s.width})", b: f"nn.Linear({s.width}, {s.width})"}, f"x = x + self.{b}(self.{a}(x))")


def _experts(s: _Sketch) -> None:
    r, a, b = s.name(), s.name(), s.name()
    layers = {r: f"nn.Linear({s.width}, 2)", **dict.fromkeys((a, b), f"nn.Linear({s.width}, {s.width})")}
    s.add(layers, f"p = self.{r}(x).softmax(-1)", f"x = p[..., :1] * self.{a}(x) + p[..., 1:] * self.{b}(x)")


def _kernel(s: _Sketch) -> str:
    size = s.random.choice((1, 3, 3, 5))
    parts = [f"padding={size // 2}"]
    if size > 1 and s.random.random() < 0.3:
        parts = [f"padding={size // 2 * 2}", "dilation=2"]
    if s.random.random() < 0.2:
        parts.append("stride=2")
    if s.random.random() < 0.2 and size > 1:
        parts = [f"padding={size // 2}", f"padding_mode={s.random.choice(('reflect', 'circular', 'replicate'))!r}"]
    return f"{size}, " + ", ".join(parts)


def _class(s: _Sketch) -> str:
    return "nn.Conv2d" if s.kind == "image" else "nn.Conv1d"


def _convolution(s: _Sketch) -> None:
    a, width = s.name(), s.pick()
    s.add({a: f"{_class(s)}({s.width}, {width}, {_kernel(s)}{s.bias()})"}, f"x = self.{a}(x)", f"x = {s.activation()}",
          width=width)  # fmt: skip


def _depthwise(s: _Sketch) -> None:
    a = s.name()
    groups = s.width if s.random.random() < 0.7 else s.random.choice([g for g in (1, 2, 4) if s.width % g == 0])
    s.add({a: f"{_class(s)}({s.width}, {s.width}, {_kernel(s)}, groups={groups})"}, f"x = self.{a}(x)",
          f"x = {s.activation()}")  # fmt: skip


def _pointwise(s: _Sketch) -> None:
    a, b, width = s.name(), s.name(), s.pick()
    layers = {a: f"nn.Conv2d({s.width}, {width}, 1, bias=False)", b: f"nn.BatchNorm2d({width})"}
    s.add(layers, f"x = F.relu(self.{b}(self.{a}(x)))", width=width)


def _residual(s: _Sketch) -> None:
    a, b, hidden = s.name(), s.name(), s.pick()
    layers = {a: f"{_class(s)}({s.width}, {hidden}, 3, padding=1)", b: f"{_class(s)}({hidden}, {s.width}, 1)"}
    s.add(layers, f"x = F.relu(x + self.{b}(F.relu(self.{a}(x))))")


def _head(s: _Sketch) -> None:
    a, width = s.name(), s.pick()
    s.add({a: f"nn.Linear({s.width}, {width})"}, "x = x.flatten(2).mean(-1)", f"x = self.{a}(x)", width=width)
    s.kind = "tokens"


def _setup(s: _Sketch, dtype: str) -> tuple[str, ...]:
    """What is done to some weights before they are stored."""
    layers = [n for b in s.blocks for n, made in b.layers if "Linear" in made or "Conv" in made or "Embed" in made]
    lines = []
    for name in layers:
        if s.random.random() < 0.35:
            weight = f"model.{name}.weight"
            lines.append(
                s.random.choice(
                    (
                        f"{weight}[0] = 0",
                        f"{weight}.zero_()",
                        f"{weight}[-1] *= 1e-40",
                        f"{weight}[0] *= 3e4",
                        f"{weight}.abs_()",
                        f"{weight}.sub_({weight}.amax() + 0.01)",
                        f"{weight}.fill_(0.25)",
                        f"{weight}.mul_(4).round_()",
                        f"{weight}.mul_(1e-3).flatten()[0] = 2.0",
                        f"{weight}.requires_grad_(False)",
                    )
                )
            )
    if s.kind == "image" and s.random.random() < 0.3:
        lines.append("model.to(memory_format=torch.channels_last)")
    return tuple(lines)
