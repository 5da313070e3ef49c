"""Training with the weights that will be stored: `quantize_aware`, until `quantize` stores them.

effcc.quantize_aware(model, "int4(group=32)")
...                                                   # train as always
effcc.quantize(model, "int4(group=32)")               # the weights that the last step computed with
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effcc.compression.install import Choice, Model, require_module, weights_of
from effcc.compression.modules import InTraining
from effcc.compression.schemes import Schemes, assigned, require_kind, schemes_of
from effcc.errors import EncodingError
from effcc.frontend.decode import to_numpy, to_tensor
from effcc.ir.dtypes import from_numpy
from effcc.ir.encodings import storage
from effcc.ir.encodings.registry import names
from effcc.ir.parser import encoding_of


def quantize_aware(model: Model, scheme: Schemes = "int8", *, where: Choice | None = None) -> Model:
    """Have modules compute with their weights as `scheme` would store them, while training the weights themselves.

    The forward uses Q(w), with scales fitted to w anew each time; the gradient of Q(w) is passed to w as it is
    (straight through): rounding is treated as if it were the identity. `quantize` with the same scheme then stores
    what the forward computed with. State dicts do not change.

    scheme, where, and what is raised: as `quantize`. In place; returns `model`.

    Bengio, Leonard, Courville: Estimating or Propagating Gradients Through Stochastic Neurons, 2013; Jacob et al.:
    Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference, CVPR 2018.

        >>> model = quantize_aware(nn.Linear(4, 2), "int8")
        >>> model(torch.ones(4)).sum().backward()
        >>> model.weight.grad.tolist()
        [[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]]
    """
    require_module(model, "quantize_aware")
    schemes = schemes_of(scheme)
    require_kind(schemes, names("values"), "quantize_aware", "sparsify")
    plan = assigned(weights_of(model, where), schemes)
    for weight, wanted in plan:
        held = weight.held
        if held is not None:
            raise EncodingError(f"{weight.name} is stored as {held.storage.encoding} already; train the dense weight")
        try:
            storage(wanted, weight.module.weight.shape, from_numpy(weight.dense().dtype))
        except EncodingError as error:
            raise EncodingError(f"{weight.name}: {error} (leave it out with where=...)") from None
    for weight, wanted in plan:
        for module in weight.modules.values():
            module.__class__ = type(module) if isinstance(module, InTraining) else IN_TRAINING[type(module)]
            module.encoding = str(wanted)  # type: ignore[assignment]
    return model


@torch.library.custom_op("effcc::rounded", mutates_args=(), schema="(str scheme, Tensor weight) -> Tensor")
def rounded(scheme: str, weight: Tensor) -> Tensor:
    """A weight as a scheme stores it; its gradient is that of the identity."""
    dense = to_numpy(weight)
    made = storage(encoding_of(scheme), dense.shape, from_numpy(dense.dtype))
    return to_tensor(np.asarray(made.decode(made.encode(dense))).astype(dense.dtype)).to(weight.device)


@rounded.register_fake
def _(scheme: str, weight: Tensor) -> Tensor:
    return torch.empty_like(weight)


rounded.register_autograd(lambda ctx, gradient: (None, gradient))


class LinearInTraining(InTraining, nn.Linear):
    """`nn.Linear` that computes with its weight as it will be stored."""

    dense = nn.Linear

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, rounded(self.encoding, self.weight), self.bias)


class EmbeddingInTraining(InTraining, nn.Embedding):
    """`nn.Embedding` that looks up its table as it will be stored."""

    dense = nn.Embedding

    def forward(self, input: Tensor) -> Tensor:
        table = rounded(self.encoding, self.weight)
        return F.embedding(
            input, table, self.padding_idx, self.max_norm, self.norm_type, self.scale_grad_by_freq, self.sparse
        )


class _ConvolutionInTraining(InTraining):
    weight: Tensor
    bias: Tensor | None
    _conv_forward: Any

    def forward(self, input: Tensor) -> Tensor:
        made: Tensor = self._conv_forward(input, rounded(self.encoding, self.weight), self.bias)
        return made


class Conv1dInTraining(_ConvolutionInTraining, nn.Conv1d):
    """`nn.Conv1d` that computes with its kernel as it will be stored."""

    dense = nn.Conv1d


class Conv2dInTraining(_ConvolutionInTraining, nn.Conv2d):
    """`nn.Conv2d` that computes with its kernel as it will be stored."""

    dense = nn.Conv2d


class Conv3dInTraining(_ConvolutionInTraining, nn.Conv3d):
    """`nn.Conv3d` that computes with its kernel as it will be stored."""

    dense = nn.Conv3d


IN_TRAINING: dict[type[nn.Module], type[InTraining]] = {
    made.dense: made
    for made in (LinearInTraining, EmbeddingInTraining, Conv1dInTraining, Conv2dInTraining, Conv3dInTraining)
}
"""What each class of module becomes."""
