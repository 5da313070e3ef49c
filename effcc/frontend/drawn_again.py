"""Random calls that a backward pass repeats: those of checkpointed regions, which AOTAutograd wraps.

    run_and_save_rng_state(operator, *arguments)        the generator's state before the call, and the call's results
    run_with_rng_state(state, operator, *arguments)     the results of the call made again in that state

Each is one call to PyTorch. Capture tells of an operator what it gives (`val`), but not of these.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx
from torch._guards import detect_fake_mode
from torch._subclasses.fake_tensor import FakeTensorMode

SAVING = torch.ops.higher_order.run_and_save_rng_state
REPEATING = torch.ops.higher_order.run_with_rng_state


def is_drawn_again(target: Any) -> bool:
    """Whether a call is one of the two."""
    return target is SAVING or target is REPEATING


def is_generator_state(node: fx.Node) -> bool:
    """Whether a node is the state that a call saved, whose size is known though capture may give it a symbol."""
    source = node.args[0] if node.target is operator.getitem else None
    return isinstance(source, fx.Node) and source.target is SAVING and node.args[1:] == (0,)


def example(node: fx.Node) -> Any:
    """What the call gives, as fake tensors: of the first kind the state as well, before the operator's results."""
    called: Any
    called, *given = node.args if node.target is SAVING else node.args[1:]
    arguments, named = fx.node.map_arg((given, node.kwargs), lambda n: n.meta["val"])
    values = [n.meta.get("val") for n in node.graph.nodes if n.op == "placeholder"]
    with detect_fake_mode(values) or FakeTensorMode(allow_non_fake_inputs=True):
        results = called(*arguments, **named)
        state = torch.empty(torch.get_rng_state().shape, dtype=torch.uint8)
    return (state, results) if node.target is SAVING else results
