"""transformers' `generate` over a compiled model, as README tells: two programs, and no compilation at later tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import effcc
from effcc.backend import programs_of
from effcc.errors import InputError

transformers = pytest.importorskip("transformers")


def test_generate_compiles_one_program_for_prompts_and_one_for_tokens() -> None:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, pad_token_id=0,
    )  # fmt: skip
    model = effcc.quantize(transformers.LlamaForCausalLM(config).eval(), "int8")
    prompts = torch.randint(1, 64, (2, 1, 8))

    def generate(prompt: torch.Tensor, tokens: int, **options: Any) -> torch.Tensor:
        torch.manual_seed(1)
        mask = torch.ones_like(prompt)
        made: torch.Tensor = model.generate(prompt, attention_mask=mask, max_new_tokens=tokens, **options)
        return made

    sampled = {"do_sample": True, "temperature": 2.0, "top_k": 20}
    wanted = generate(prompts[0], 6), generate(prompts[1], 9), generate(prompts[1], 9, **sampled)

    torch.compiler.reset()
    cache = effcc.StoredCache(config, 32, keys=None, values=None).initialize()
    model.forward = torch.compile(model.forward, backend="effcc", dynamic=False)
    assert torch.equal(generate(prompts[0], 6, past_key_values=cache), wanted[0])
    programs = programs_of(model.forward)
    assert len(programs) == 2

    with torch._dynamo.config.patch(error_on_recompile=True):
        cache.reset()
        assert torch.equal(generate(prompts[1], 9, past_key_values=cache), wanted[1])
        cache.reset()
        assert torch.equal(generate(prompts[1], 9, past_key_values=cache, **sampled), wanted[2])
        with torch.no_grad():
            model.lm_head.weight_scale.mul_(-1)
        cache.reset()
        assert not torch.equal(generate(prompts[1], 9, past_key_values=cache), wanted[1])
    assert programs_of(model.forward) == programs


def test_weights_are_looked_at_where_guards_of_modules_are_left_out() -> None:
    torch.manual_seed(0)
    model = effcc.quantize(torch.nn.Sequential(torch.nn.Linear(64, 48)).eval(), "int8")
    options = {"guard_filter_fn": torch.compiler.skip_guard_on_all_nn_modules_unsafe}
    compiled = torch.compile(model, backend="effcc", options=options)
    layer: Any = model[0]

    def agrees() -> None:
        x = torch.randn(1, 64)
        torch.testing.assert_close(compiled(x), model(x))

    with torch.no_grad():
        agrees()
        layer.weight_values = -layer.weight_values
        agrees()
        layer.weight_scale.data = 2 * layer.weight_scale
        agrees()
        model.load_state_dict({name: t.roll(1, 0) for name, t in model.state_dict().items()})
        agrees()
        for odd in (layer.weight_values[:7].clone(), layer.weight_values.float()):
            kept, layer.weight_values = layer.weight_values, odd
            with pytest.raises(InputError, match=r"weight_values.*: expected .*\[48,64\].* on the CPU, got"):
                compiled(torch.randn(1, 64))
            layer.weight_values = kept
        agrees()
        layer.bias.data = layer.bias[:7].clone()
        with pytest.raises(InputError, match=r"bias.*: expected .*\[48\] on the CPU, got float32\[7\]"):
            compiled(torch.randn(1, 64))
