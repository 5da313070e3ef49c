"""What modules give, rounded to bytes: where convolutions are given it in bytes, and something else reads it, too.

    y = (q - zero) * step        q: the bytes that the convolutions make of it

A residual sum reads what a block was given beside its first convolution. Where both read the same bytes, nobody keeps
the numbers of f32. `effcc.compression.flow` finds such modules.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from effcc.compression.activations import Codes, by_step

OUTPUT_STEP = "output_step"


class Rounded:
    """A forward hook: what its module gives, rounded by the step that the module keeps."""

    def __init__(self, codes: Codes) -> None:
        self.codes = codes

    def __call__(self, module: nn.Module, args: Any, output: Tensor) -> Tensor:
        step: Any = getattr(module, OUTPUT_STEP)
        whole = by_step(output, step, self.codes).float()
        centred = whole - self.codes.zero if self.codes.zero else whole
        return (centred * step).to(output.dtype)


def rounds(module: nn.Module) -> Codes | None:
    """What a module's output is rounded to."""
    return next((h.codes for h in module._forward_hooks.values() if isinstance(h, Rounded)), None)


def install_output(module: nn.Module, codes: Codes | None, step: Tensor | None = None) -> None:
    """Make a module round what it gives; None: no longer."""
    for key in [k for k, h in module._forward_hooks.items() if isinstance(h, Rounded)]:
        del module._forward_hooks[key]
        delattr(module, OUTPUT_STEP)
    if codes is not None:
        module.register_buffer(OUTPUT_STEP, step)
        module.register_forward_hook(Rounded(codes))
