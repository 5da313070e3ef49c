"""Steps of training: forward and backward, then an optimizer's step, through effcc beside eager and Inductor.

python -m benchmarks.training                                  # all networks, then the optimizers
python -m benchmarks.training bert resnet --batch 8 --seconds 5
python -m benchmarks.training --optimizers adamw               # optimizers alone

Each network ends in a loss and is compiled with it; gradients are checked against float64. Sides run in turn in one
process, each on a copy of its own. With one thread, time is the process's CPU time, which other work hardly changes.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import gc
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import modules, table
from benchmarks.models import LLAMA_123M, bert, gaussian, token_ids
from benchmarks.peers import PEERS
from benchmarks.race import Timing, race
from effcc.accuracy import check

VOCABULARY = 4096
"""Of language models here: the loss over it is a tenth of their time, not most of it."""

Args = tuple[Tensor, ...]


@dataclasses.dataclass(frozen=True)
class Network:
    """`make()` gives a module in train mode that computes a loss of `inputs(batch)`."""

    make: Callable[[], nn.Module]
    inputs: Callable[[int], Args]


class MeanSquare(nn.Module):
    """The mean square of what a network gives: a loss whose gradient reaches every output."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *args: Tensor) -> Tensor:
        found = self.model(*args)
        return (found[0] if isinstance(found, tuple) else found).square().mean()


class NextTokens(nn.Module):
    """The mean cross-entropy of a decoder's logits against the tokens that follow."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor) -> Tensor:
        logits = self.model(input_ids=ids, use_cache=False).logits
        return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def _bert(dropout: float, layers: int = 2) -> nn.Module:
    rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    return MeanSquare(bert(vocab_size=VOCABULARY, num_hidden_layers=layers, **rates))


def _gpt2() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    rates: dict[str, Any] = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    return NextTokens(modules.initialise(GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_layer=2, **rates))))


def _llama() -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes: dict[str, Any] = LLAMA_123M | {"vocab_size": VOCABULARY, "num_hidden_layers": 2}
    return NextTokens(modules.initialise(LlamaForCausalLM(LlamaConfig(tie_word_embeddings=True, **sizes))))


def _resnet(**sizes: Any) -> nn.Module:
    from transformers import ResNetConfig, ResNetForImageClassification

    return MeanSquare(modules.Logits(modules.initialise(ResNetForImageClassification(ResNetConfig(**sizes)))))


def _convnext() -> nn.Module:
    from transformers import ConvNextConfig, ConvNextForImageClassification

    config = ConvNextConfig(hidden_sizes=[96, 192], depths=[2, 2], num_stages=2)
    return MeanSquare(modules.Logits(modules.initialise(ConvNextForImageClassification(config))))


def _recurrence() -> nn.Module:
    return MeanSquare(modules.initialise(modules.Recurrence(256, 2)))


def _ids(batch: int) -> Args:
    return (torch.cat([token_ids(VOCABULARY, 128)(seed)[0] for seed in range(batch)]),)


def _pictures(size: int) -> Callable[[int], Args]:
    return lambda batch: gaussian(batch, 3, size, size)(0)


_BASIC = {"layer_type": "basic", "hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 2, 2]}

NETWORKS: dict[str, Network] = {
    "bert": Network(lambda: _bert(0.0), _ids),
    "bert_dropout": Network(lambda: _bert(0.1), _ids),
    "gpt2": Network(_gpt2, _ids),
    "llama": Network(_llama, _ids),
    "resnet18": Network(lambda: _resnet(**_BASIC), _pictures(112)),
    "resnet50": Network(_resnet, _pictures(112)),
    "convnext": Network(_convnext, _pictures(112)),
    "lstm": Network(_recurrence, lambda batch: gaussian(batch, 160, 256)(0)),
}

OPTIMIZERS: dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=1e-4, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-4),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-4),
}


def gradients(model: nn.Module, run: Callable[..., Any], args: Args) -> list[Tensor | None]:
    """The gradients of all parameters after one step of `run`, which is `model` in some form."""
    model.zero_grad()
    run(*args).backward()
    return [p.grad for p in model.parameters()]


def right(model: nn.Module, found: list[Tensor | None], args: Args) -> str:
    """Whether gradients are as near to float64's as eager's are."""
    eager = gradients(copied := copy.deepcopy(model), copied, args)
    wide = copy.deepcopy(model).double()
    exact = gradients(wide, wide, tuple(a.double() if a.is_floating_point() else a for a in args))
    report = check(exact, eager, found)
    return "right" if report.ok else f"WRONG {report.worst}"


def measure(name: str, batch: int, peers: list[str], seconds: float) -> list[list[str]]:
    """Rows of the table: forward, and forward with backward, of one network through every peer."""
    network = NETWORKS[name]
    model, args = network.make().train(), network.inputs(batch)
    forward, both, notes = {}, {}, {}
    for peer in peers:
        own = copy.deepcopy(model)
        run = PEERS[peer].build(own, args)
        started = time.perf_counter()
        found = gradients(own, run, args)
        first = time.perf_counter() - started
        notes[peer] = [f"{first:.1f}", "-" if "dropout" in name else right(model, found, args)]

        def step(*args: Tensor, own: nn.Module = own, run: Callable[..., Any] = run) -> None:
            with torch.enable_grad():
                own.zero_grad()
                run(*args).backward()

        def half(*args: Tensor, run: Callable[..., Any] = run) -> None:
            with torch.enable_grad():
                run(*args)

        forward[peer], both[peer] = half, step
    clock = time.process_time if torch.get_num_threads() == 1 else None
    times = [race(sides, args, peers[0], seconds, (3, 400), clock=clock) for sides in (forward, both)]
    return [
        [f"{name}, {batch}", peer, *notes[peer], *_cells(times[0][peer]), *_cells(times[1][peer])] for peer in peers
    ]


def _cells(timing: Timing) -> list[str]:
    return [f"{timing.best * 1e3:.1f} ({timing.median * 1e3:.1f})", f"{timing.speed:.2f}x"]


def optimizer_step(name: str, peers: list[str], seconds: float) -> list[list[str]]:
    """Rows of the table: a step of one optimizer over the parameters of two layers of BERT-base."""
    runs, notes = {}, {}
    for peer in (*peers, "fused"):
        parameters = list(_bert(0.0).parameters())
        for p in parameters:
            p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
        optimizer = OPTIMIZERS[name](parameters)
        if peer == "fused":
            for group in optimizer.param_groups:
                group["fused"], group["foreach"] = True, False
        run: Callable[..., Any] = optimizer.step
        if peer not in ("eager", "fused"):
            run = torch.compile(optimizer.step, backend=peer)
        started = time.perf_counter()
        run()
        notes[peer] = f"{time.perf_counter() - started:.1f}"
        runs[peer] = run
    clock = time.process_time if torch.get_num_threads() == 1 else None
    times = race(runs, (), peers[0], seconds, (3, 400), clock=clock)
    return [[name, peer, notes[peer], *_cells(times[peer])] for peer in runs]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", help="of " + ", ".join(NETWORKS))
    parser.add_argument("--peers", default="eager,inductor,effcc", help="of " + ", ".join(PEERS))
    parser.add_argument("--optimizers", nargs="*", default=[], help="of " + ", ".join(OPTIMIZERS))
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each race runs")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="for every side")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    peers, rows, steps = options.peers.split(","), [], []
    everything = not options.networks and not options.optimizers
    for name in NETWORKS if everything else options.networks:
        print(f"{name} ...", flush=True)
        rows += measure(name, options.batch, peers, options.seconds)
        torch.compiler.reset()
        gc.collect()
    for name in OPTIMIZERS if everything else options.optimizers:
        steps += optimizer_step(name, peers, options.seconds)
        torch.compiler.reset()
    titles = f"fp32, {options.threads} threads, best (median) ms"
    columns = ["network, batch", "through", "first s", "gradients", "forward", "speed", "and backward", "speed"]
    table.show(f"Forward and backward, {titles}", columns, rows)
    if steps:
        table.show(f"A step of an optimizer, {titles}", ["optimizer", "through", "first s", "step", "speed"], steps)


if __name__ == "__main__":
    main()
