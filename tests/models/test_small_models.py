"""Unlike architectures of transformers, tiny, are right through effcc, for two shapes each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch

from benchmarks.architectures import measure, tensors
from benchmarks.small_models import SMALL_MODELS
from effcc.accuracy import check

WHOLE = (
    "deberta-v2", "funnel", "gemma2", "mamba2", "mixtral", "t5", "whisper", "dinov2", "clip", "patchtst",
)  # fmt: skip
"""Those that the zoo and what generates text below have no like of."""
LAYERS = ("num_hidden_layers", "num_layers", "encoder_layers", "decoder_layers")
ALTERNATING = ("gemma2",)
"""Those whose layers differ from each other; of others, one layer says what two would in half of the time."""


def one_layer(sizes: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration, and those within it, with as many layers as make no two alike."""
    inner = {k: one_layer(v) for k, v in sizes.items() if isinstance(v, Mapping)}
    return {**sizes, **inner, **{k: 1 for k in LAYERS if k in sizes}}


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
def test_an_architecture_is_right_as_one_graph(name: str) -> None:
    entry = SMALL_MODELS[name]
    entry = entry if name in ALTERNATING else replace(entry, sizes=one_layer(entry.sizes))
    row = measure(name, entry, own=False)
    assert row.result == "right"
    assert row.breaks == 0


def test_every_architecture_has_two_shapes() -> None:
    for name, entry in SMALL_MODELS.items():
        first, second = ({n: t.shape for n, t in entry.inputs(variant).items()} for variant in (0, 1))
        assert all(first[n] != second[n] for n in first), name


@pytest.mark.slow
def test_memory_is_read_where_a_window_looks_past_a_transposed_tensor() -> None:
    """Longformer takes its windows with `as_strided`, of transposed tensors; PyTorch breaks its graph by itself."""
    entry = SMALL_MODELS["longformer"]
    model, inputs = entry.build(), entry.inputs(1)
    with torch.no_grad():
        eager = tensors(model(**inputs))
        compiled: Any = torch.compile(model, backend="effcc")
        results = tensors(compiled(**inputs))
        wide = tensors(model.double()(**inputs))
        check(wide, eager, results).require("longformer")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_generation_with_a_compiled_forward_is_eagers(name: str) -> None:
    model: Any = SMALL_MODELS[name].build()
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = None, 0
    inputs = SMALL_MODELS[name].inputs(1)
    options: dict[str, Any] = {"max_new_tokens": 5, "do_sample": False}
    expected = model.generate(**inputs, **options)
    model.forward = torch.compile(model.forward, backend="effcc")
    assert torch.equal(model.generate(**inputs, **options), expected)
