"""Every overload that the importer knows: one call, imported and interpreted, says what eager says."""

from __future__ import annotations

import operator
from typing import Any

import pytest
import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree as pytree

from effcc.frontend.aten import import_graph
from effcc.frontend.capture import Signature
from effcc.frontend.coverage import core_overloads, coverage
from effcc.frontend.importer import REGISTRY
from effcc.ir.verifier import verify_graph
from tests.frontend.import_checks import Trace, assert_same
from tests.frontend.overload_calls import Call, all_calls

CALLS = all_calls()

# Calls that have no native form, though their overload does.
EXTERN = ("scatter_reduce.two(int64[5,4],0,int64[2,3],int64[3,4],mean", "_embedding_bag")


def traced(call: Call) -> Trace:
    """A graph of this one call, imported."""
    graph, fake = fx.Graph(), FakeTensorMode()
    leaves, tree = pytree.tree_flatten((call.args, dict(call.kwargs)))
    tensors = [a for a in leaves if isinstance(a, Tensor)]
    nodes = {}
    for position, tensor in enumerate(tensors):
        nodes[id(tensor)] = graph.placeholder(f"x{position}")
        nodes[id(tensor)].meta["val"] = fake.from_tensor(tensor)
    args, kwargs = pytree.tree_unflatten([nodes.get(id(a), a) for a in leaves], tree)
    made = graph.call_function(call.overload, args, kwargs)
    fakes = [nodes[id(a)].meta["val"] if isinstance(a, Tensor) else a for a in leaves]
    args, kwargs = pytree.tree_unflatten(fakes, tree)
    with fake:
        value = call.overload(*args, **kwargs)
    made.meta["val"] = value
    several = isinstance(value, list | tuple)
    results: list[Any] = [made]
    if several:
        results = [graph.call_function(operator.getitem, (made, k)) for k in range(len(value))]
        for node, item in zip(results, value, strict=True):
            node.meta["val"] = item
    graph.output(tuple(results))
    module = fx.GraphModule({}, graph)
    names = tuple(f"x{k}" for k in range(len(tensors)))
    imported = import_graph(module, Signature("inference", names, frozenset(), frozenset(), (None,) * len(results)))
    verify_graph(imported.graph)
    return Trace(module, imported, tuple(tensors))


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_a_call_means_the_same_after_import(call: Call) -> None:
    trace = traced(call)
    assert ("extern" in trace.ops) == any(e in str(call) for e in EXTERN)
    expected = trace.eager()
    half = any(isinstance(e, Tensor) and e.dtype in (torch.float16, torch.bfloat16) for e in expected)
    assert_same(trace.interpreted(), expected, 1e-2 if half else 1e-5)


def test_every_importer_has_a_sample_call() -> None:
    """All of PyTorch's own but those that give values nobody specified, and control flow (`test_control.py`); those of
    other packages stand by their names (`test_segments.py`)."""
    unspecified = {"aten.empty.memory_format", "aten.empty_strided.default", "aten.empty_permuted.default"}
    known = {str(o) for o in REGISTRY if not isinstance(o, str) and o.namespace not in ("effcc", "higher_order")}
    assert known - {str(c.overload) for c in CALLS} == unspecified


def test_every_core_overload_is_native_or_has_a_reason() -> None:
    rows = coverage()
    assert len(rows) == len(core_overloads()) > 150
    assert [row.overload for row in rows if row.status == "missing"] == []
    assert all(row.reason for row in rows if row.status == "extern")


def test_the_moments_of_groups_are_sums_over_axes_that_stay_apart() -> None:
    """Of unknown sizes, one axis of all pixels would be divided again by each of them, at every point."""
    x = torch.randn(2, 8, 5, 3)
    trace = traced(Call(torch.ops.aten.native_group_norm.default, (x, None, None, 2, 8, 15, 4, 1e-5)))
    reshaped = [n.result.type.shape for n in trace.imported.graph.nodes if n.op == "reshape"]
    assert (2, 4, 2, 5, 3) in reshaped and all(15 not in shape and 30 not in shape for shape in reshaped)
