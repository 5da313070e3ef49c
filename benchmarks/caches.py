"""Keys and values kept as codes: what they do to accuracy, and to tokens a second with a long context.

    python -m benchmarks.caches accuracy --judged 4 --length 256
    python -m benchmarks.caches decode --tokens 2048 8192

`accuracy`: SmolLM2-135M on Python's documentation, all of a sequence through the cache, beside a float32 cache.
`decode`: one token after the other of a model of Llama's shape (4 heads of keys and values of width 128 that 16 queries
share, 2 layers, few other weights), whose cache is full; all caches in turn, in one process.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from torch import Tensor, nn

import effcc
from benchmarks import table

SCHEMES: tuple[tuple[str | None, str | None], ...] = (
    (None, None),
    ("int8", "int8"),
    ("int8(group=32)", "int8(group=32)"),
    ("int8", "int4(group=32)"),
    ("int6(group=32)", "int5(group=32)"),
    ('int4(group=32,scale="f16")', 'int4(group=32,scale="f16")'),
    ('int4(group=32,minimum=true,scale="f16")', 'int4(group=32,minimum=true,scale="f16")'),
    ('int4(group=16,minimum=true,scale="f16")', 'int4(group=16,minimum=true,scale="f16")'),
    ("int3(group=16)", "int3(group=16)"),
)
TIMED = ((None, None), ("int8", "int8"), ("int4(group=32)", "int4(group=32)"))
TURNS = 5
STEPS = 8


class Cached(nn.Module):
    """A language model as tokens to logits, through a cache."""

    def __init__(self, inner: Any, keys: str | None, values: str | None) -> None:
        super().__init__()
        self.inner, self.keys, self.values = inner, keys, values
        self.bytes = 0.0

    def forward(self, tokens: Tensor) -> Tensor:
        cache = effcc.StoredCache(self.inner.config, tokens.shape[1], keys=self.keys, values=self.values)
        logits: Tensor = self.inner(tokens, past_key_values=cache, use_cache=True).logits
        self.bytes = cache.bytes / tokens.shape[1]
        return logits


def accuracy(judged: int, length: int) -> None:
    from benchmarks.accuracy.subjects import SmolLM2

    subject = SmolLM2(1, judged, length)
    inner: Any = subject.model.inner
    rows = []
    for keys, values in SCHEMES:
        model = Cached(inner, keys, values)
        found = subject.judge(model)
        rows.append([keys or "float32", values or "float32", f"{model.bytes:,.0f}", *(f"{x:.5g}" for x in found)])
        print(*rows[-1], sep="  ", flush=True)
    table.show("smollm2", ("keys", "values", "bytes a token", *subject.measures), rows)


def decode(lengths: list[int], threads: int) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    rows = []
    for length in lengths:
        config = LlamaConfig(
            vocab_size=512, hidden_size=512, intermediate_size=512, num_hidden_layers=2, num_attention_heads=16,
            num_key_value_heads=4, head_dim=128, max_position_embeddings=length,
        )  # fmt: skip
        model: Any = LlamaForCausalLM(config).eval()
        runs = []
        for keys, values in TIMED:
            torch._dynamo.reset()
            cache: Any = effcc.StoredCache(config, length, keys=keys, values=values).initialize()
            for layer in cache.layers:
                for state in (layer.keys, layer.values):
                    state.write(2, torch.arange(length), torch.randn(state.shape))
            compiled, seconds = torch.compile(model, backend="effcc", dynamic=False), list[float]()
            runs.append((keys, values, cache, compiled, seconds))
            _steps(compiled, cache, length)
        for _ in range(TURNS):
            for _, _, cache, run, seconds in runs:
                seconds.append(_steps(run, cache, length) / STEPS)
        first = min(runs[0][4])
        for keys, values, cache, _, seconds in runs:
            best = min(seconds)
            rows.append([
                str(length), keys or "float32", values or "float32", f"{cache.bytes / 1e6:.1f}", f"{best * 1e3:.2f}",
                f"{sorted(seconds)[len(seconds) // 2] * 1e3:.2f}", f"{1 / best:.0f}", f"{first / best:.2f}",
            ])  # fmt: skip
    names = ("tokens", "keys", "values", "MB", "ms a token, best", "median", "tokens/s", "times float32's")
    table.show(f"decode, {threads} threads", names, rows)


def _steps(run: Any, cache: Any, length: int) -> float:
    """Seconds for some tokens at the end of a full cache."""
    token = torch.zeros(1, 1, dtype=torch.long)
    for layer in cache.layers:
        layer.cumulative_length.fill_(length - STEPS)
    begun = time.perf_counter()
    for place in range(length - STEPS, length):
        places = torch.tensor([[place]])
        logits = run(token, past_key_values=cache, position_ids=places, use_cache=True).logits
        token = logits[:, -1:].argmax(-1)
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("accuracy", "decode"))
    parser.add_argument("--judged", type=int, default=4, help="sequences of text")
    parser.add_argument("--length", type=int, default=256, help="tokens of a sequence")
    parser.add_argument("--tokens", type=int, nargs="+", default=[2048, 8192], help="lengths of the cache")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    with torch.no_grad():
        if options.what == "accuracy":
            accuracy(options.judged, options.length)
        else:
            decode(options.tokens, options.threads)


if __name__ == "__main__":
    main()
