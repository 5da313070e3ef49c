"""Static activations of a model: the bytes of what layers are given, and of what modules return to several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from effcc.compression.activations import Activations, Codes
from effcc.compression.calls import Call
from effcc.compression.flow import Flow
from effcc.compression.inputs import InputChange
from effcc.compression.integers import install_activations
from effcc.compression.outputs import install_output
from effcc.compression.progress import progress
from effcc.compression.ranges import codes_for, observe

Quantized = tuple[Codes, Tensor | None]
Layers = Mapping[str, tuple[nn.Module, InputChange]]


@dataclass(frozen=True)
class Found:
    """What the inputs of layers become, by name, and the outputs of modules: codes, and for static ones their step."""

    inputs: Mapping[str, Quantized] = field(default_factory=dict)
    outputs: Mapping[str, Quantized] = field(default_factory=dict)

    def install(self, model: nn.Module) -> None:
        for name, (codes, step) in self.inputs.items():
            module = model.get_submodule(name)
            install_activations(module, None)
            install_activations(module, codes, step)
        for name, (codes, step) in self.outputs.items():
            install_output(model.get_submodule(name), codes, step)


def static_codes(model: nn.Module, layers: Layers, how: Activations, calls: Sequence[Call]) -> Found:
    """The codes that cover what layers, and those who add their outputs, were given while the calls ran.

    Layers that read one module's output in bytes share its step, the tensor itself.
    """
    convolutions = [n for n, (m, change) in layers.items() if isinstance(m, nn.Conv2d) and not change]
    flow = Flow(convolutions) if how.sums == "int8" and convolutions else None
    with progress(len(calls)) as step:
        seen = observe(model, layers, calls, lambda: step("calibrating"), flow)
    inputs = {name: codes_for(seen[name], how) for name in layers}
    if flow is None:
        return Found(inputs)
    shared, outputs = flow.shared(), dict[str, Quantized]()
    for name, readers in shared.given.items():
        outputs[name] = inputs[readers[0]]
        inputs |= dict.fromkeys(readers, inputs[readers[0]])
    added = {name: model.get_submodule(name) for name in shared.added}
    with progress(len(calls)) as step:
        waiting = observe(model, {}, calls, lambda: step("calibrating sums"), returning=added) if added else {}
    outputs |= {name: codes_for(waiting[name], how) for name in added}
    return Found(inputs, outputs)
