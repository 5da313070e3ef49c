"""The bodies of captured control flow as regions: graphs that take the same operands and return tensors.

PyTorch hands a body what it reads as operands, but a body's large constants, and sizes that only it can tell, become
parameters of its own. They are made operands of the whole call, so that all bodies of a call agree.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor, fx

from effcc.errors import UnsupportedError
from effcc.frontend.capture import Signature, placeholders, results
from effcc.frontend.importer import Importer
from effcc.ir.dims import symbol
from effcc.ir.dtypes import boolean
from effcc.ir.graph import Graph, Value

if TYPE_CHECKING:
    from effcc.frontend.aten import Imported

HoldConstant = Callable[[str, Tensor], Value]


def signature(body: fx.GraphModule) -> Signature:
    """What the placeholders and results of a body are: plain inputs and outputs."""
    names = tuple(node.name for node in placeholders(body))
    return Signature("body", names, frozenset(), frozenset(), (None,) * len(results(body)))


def share_parameters(bodies: Sequence[Imported], where: str) -> list[Graph]:
    """The bodies' graphs, each taking the call's operands, then every body's own further parameters in turn.

    Raises UnsupportedError for a body that writes its operands, or returns a size or a number.
    """
    for body in bodies:
        if body.graph.updates:
            raise UnsupportedError(f"the control flow at {where} writes a tensor in its body; return it instead")
        returned = [o for o in body.outputs if o is not None and not isinstance(o, Value)]
        if returned:
            raise UnsupportedError(f"the control flow at {where} returns {returned[0]} from its body; expected tensors")
    further = [_further(body) for body in bodies]
    graphs = []
    for own, body in enumerate(bodies):
        params = list(body.graph.params[: len(body.graph.params) - len(further[own])])
        for position, group in enumerate(further):
            unused = [Value(f"unused.{position}.{p.name}", p.type) for p in group]
            params += group if position == own else unused
        graphs.append(dataclasses.replace(body.graph, params=tuple(params)))
    return graphs


def further_operands(bodies: Sequence[Imported], importer: Importer, hold: HoldConstant) -> tuple[Value, ...]:
    """What the call passes for the further parameters: constants that the program holds, and carriers of sizes."""
    found: list[Value] = []
    for body in bodies:
        found += [hold(name, tensor) for name, tensor in body.constants.items()]
        true = importer.constant(True, boolean)
        found += [importer.broadcast(true, (symbol(name),)) for name in body.lone_sizes]
    return tuple(found)


def _further(body: Imported) -> tuple[Value, ...]:
    count = len(body.constants) + len(body.lone_sizes)
    return body.graph.params[len(body.graph.params) - count :]


def known_bodies(arguments: Sequence[object]) -> Mapping[int, fx.GraphModule]:
    """The bodies among the arguments of a call, by position."""
    return {position: a for position, a in enumerate(arguments) if isinstance(a, fx.GraphModule)}
