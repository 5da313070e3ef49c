"""A language model from a GGUF file: time to load, to the first token, and tokens a second, beside llama.cpp.

    python -m benchmarks.gguf SmolLM2-135M-Instruct.Q4_1.gguf --llama-python ../venv-llama/bin/python

llama.cpp (`llama-cpp-python`) runs before and after effcc, in the Python that `--llama-python` names, with as many
threads; its best of both runs counts. The logits of the last prompt token are compared with eager's on decoded
weights.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from collections.abc import Callable
from typing import Any

PROMPT = 128
"""Tokens before the first that is made."""
REPEATS = 3


def effcc_row(path: str, tokens: int, unguarded: bool = False) -> dict[str, float]:
    """Seconds to load and to the first tokens, then tokens a second; how far logits are from eager's.

    unguarded: without torch.compile's guards of modules.
    """
    import torch
    from transformers import StaticCache

    import effcc

    begun = time.perf_counter()
    model: Any = effcc.from_gguf(path)
    loaded = time.perf_counter()
    options: dict[str, Any] = {"guard_filter_fn": torch.compiler.skip_guard_on_all_nn_modules_unsafe}
    compiled = torch.compile(model, backend="effcc", dynamic=False, options=options if unguarded else None)
    config = model.config
    cache = StaticCache(config=config, max_cache_len=PROMPT + tokens)
    # Initialized within the first call, the cache would be another one to the second: Dynamo would capture again.
    cache.early_initialization(1, config.num_key_value_heads, config.head_dim, torch.float32, torch.device("cpu"))
    prompt = torch.arange(PROMPT)[None] + 100

    def logits(run: Callable[..., Any], given: torch.Tensor, place: int) -> torch.Tensor:
        if place == 0:
            cache.reset()
        places = torch.arange(place, place + given.shape[1])[None]
        made: torch.Tensor = run(
            given, past_key_values=cache, position_ids=places, use_cache=True, logits_to_keep=1
        ).logits
        return made[:, -1]

    with torch.no_grad():
        got = logits(compiled, prompt, 0)
        first = time.perf_counter()
        logits(compiled, got.argmax(-1, keepdim=True), PROMPT)
        second = time.perf_counter()
        prefill = _best(lambda: logits(compiled, prompt, 0))

        speeds = []
        for _ in range(REPEATS):
            token = logits(compiled, prompt, 0).argmax(-1, keepdim=True)
            start = time.perf_counter()
            for step in range(tokens):
                token = logits(compiled, token, PROMPT + step).argmax(-1, keepdim=True)
            speeds.append(tokens / (time.perf_counter() - start))
        off = (got - logits(model, prompt, 0)).abs().max().item()
    return {
        "load s": loaded - begun,
        "first token s": first - loaded,
        "second token s": second - first,
        "prefill tokens/s": PROMPT / prefill,
        "decode tokens/s": max(speeds),
        "logits off eager's": off,
    }


def llama_cpp_row(path: str, tokens: int, threads: int) -> dict[str, float]:
    """The same of llama.cpp."""
    import llama_cpp

    begun = time.perf_counter()
    model = llama_cpp.Llama(path, n_ctx=PROMPT + tokens, n_threads=threads, n_threads_batch=threads, verbose=False)
    loaded = time.perf_counter()

    def prefill() -> None:
        model.reset()
        model.eval([100 + i for i in range(PROMPT)])

    prefill()
    first = time.perf_counter()
    best = _best(prefill)
    speeds = []
    for _ in range(REPEATS):
        prefill()
        start = time.perf_counter()
        for step in range(tokens):
            model.eval([200 + step])
        speeds.append(tokens / (time.perf_counter() - start))
    return {
        "load s": loaded - begun,
        "first token s": first - loaded,
        "prefill tokens/s": PROMPT / best,
        "decode tokens/s": max(speeds),
    }


def _best(run: Callable[[], object]) -> float:
    taken = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return min(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--unguarded", action="store_true", help="leave torch.compile's guards of modules out")
    parser.add_argument("--llama-python", help="a Python that has llama-cpp-python")
    parser.add_argument("--llama-only", action="store_true", help="print llama.cpp's row as JSON")
    args = parser.parse_args()
    if args.llama_only:
        print(json.dumps(llama_cpp_row(args.path, args.tokens, args.threads)))
        return
    import torch

    torch.set_num_threads(args.threads)
    given = [args.path, "--tokens", str(args.tokens), "--threads", str(args.threads), "--llama-only"]

    def llama_cpp() -> dict[str, float]:
        told = subprocess.run([args.llama_python, __file__, *given], check=True, stdout=subprocess.PIPE, text=True)
        row: dict[str, float] = json.loads(told.stdout)
        return row

    before = llama_cpp() if args.llama_python else {}
    rows = {"effcc": effcc_row(args.path, args.tokens, args.unguarded)}
    if args.llama_python:
        after = llama_cpp()
        rows["llama.cpp"] = {n: (max if n.endswith("/s") else min)(v, after[n]) for n, v in before.items()}
    names = list(rows["effcc"])
    print("| |", " | ".join(names), "|\n|---|" + "---|" * len(names))
    for engine, row in rows.items():
        print(f"| {engine} |", " | ".join(f"{row[n]:.4g}" if n in row else "" for n in names), "|")


if __name__ == "__main__":
    main()
