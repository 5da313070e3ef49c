"""A small convolutional network, trained here on scikit-learn's digits, and the ways to its floor."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import effcc
from benchmarks.accuracy.formats import Store, bits, decoded, quantized
from benchmarks.accuracy.kept import Kept
from benchmarks.accuracy.subjects import Subject

EPOCHS, RATE = 20, 3e-3
MORE_EPOCHS, MORE_RATE = 10, 1e-3
SCHEMES = ("int8", "int4(group=32)", "int3(group=32)", "int2(group=16)", "ternary", "binary")
METHODS = ("nearest", "gptq", "quantease")
PRUNINGS = ("magnitude", "wanda", "sparsegpt")
PRUNED = (0.5, 0.7, 0.8, 0.9, 0.95)


class Digits(Subject):
    """Half of the 1,797 images of 8 x 8 train the network, the others judge it."""

    measures = ("accuracy", "KL")

    def __init__(self) -> None:
        from sklearn.datasets import load_digits

        found = load_digits()
        images = torch.tensor(found.images, dtype=torch.float32)[:, None] / 16
        labels = torch.tensor(found.target)
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
        half = len(images) // 2
        self.images, self.labels = images[order[half:]], labels[order[half:]]
        self.model = _network()
        self.train = functools.partial(_train, images=images[order[:half]], labels=labels[order[:half]])
        self.train(self.model, EPOCHS, RATE)
        self.calibration = [(batch,) for batch in images[order[:half]].split(64)]

    def chosen(self, name: str, module: nn.Module) -> bool:
        return isinstance(module, nn.Linear | nn.Conv2d)

    def judge(self, model: nn.Module) -> tuple[float, ...]:
        """Share of right answers, and mean KL divergence from the original in nats."""
        p, q = (m(self.images).log_softmax(-1) for m in (self.model, model))
        right = (q.argmax(-1) == self.labels).float().mean()
        return float(right), float((p.exp() * (p - q)).sum(-1).mean())


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def _train(model: nn.Module, epochs: int, rate: float, *, images: Tensor, labels: Tensor) -> None:
    torch.manual_seed(1)
    optimizer = torch.optim.AdamW(model.train().parameters(), rate, weight_decay=1e-2)
    with torch.enable_grad():
        for _ in range(epochs):
            for batch in torch.randperm(len(images)).split(64):
                optimizer.zero_grad()
                F.cross_entropy(model(images[batch]), labels[batch]).backward()
                optimizer.step()
    model.eval()


def ways(subject: Digits, kept: Kept) -> Iterator[tuple[str, Store]]:
    """Down to where it breaks: fewer bits by each method, then with training; fewer weights by each score."""
    for method in METHODS:
        for scheme in SCHEMES:
            yield f"{method}: {scheme}", quantized(subject, scheme, method, kept)
    yield "static int8, inputs too", static(subject)
    for scheme in SCHEMES:
        yield f"trained: {scheme}", trained(subject, scheme)
    for pruning in PRUNINGS:
        for share in PRUNED:
            yield f"{pruning}: {share:.0%} pruned", pruned(subject, 1 - share, pruning)


def trained(subject: Digits, scheme: str) -> Store:
    """`effcc.quantize_aware`, some more epochs, and `effcc.quantize`."""

    def store(model: nn.Module) -> tuple[float, nn.Module]:
        effcc.quantize_aware(model, scheme, where=subject.chosen)
        subject.train(model, MORE_EPOCHS, MORE_RATE)
        effcc.quantize(model, scheme, where=subject.chosen)
        return bits(model, subject), decoded(model, subject)

    return store


def static(subject: Digits) -> Store:
    """Weights and inputs as bytes, by the ranges of the calibration data; judged as it computes."""

    def store(model: nn.Module) -> tuple[float, nn.Module]:
        effcc.quantize(model, "int8", activations="int8", data=subject.calibration, where=subject.chosen)
        return bits(model, subject), model

    return store


def pruned(subject: Digits, density: float, method: str) -> Store:
    """`effcc.sparsify` of the linear layers to single elements, as many in each row as matter there."""

    def store(model: nn.Module) -> tuple[float, nn.Module]:
        data = None if method == "magnitude" else subject.seen
        effcc.sparsify(model, "csr", density=density, method=method, data=data, where=_linear)
        return bits(model, subject), decoded(model, subject)

    return store


def _linear(_: str, module: nn.Module) -> bool:
    return isinstance(module, nn.Linear)
