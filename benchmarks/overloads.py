"""Which ATen overloads the importer meets: captures the zoo and prints each overload with its uses and attributes.

python -m benchmarks.overloads            # tiny models: the same overloads in seconds
python -m benchmarks.overloads --full     # the sizes that are measured
python -m benchmarks.overloads --training # forward and backward halves
"""

from __future__ import annotations

import argparse
import collections
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import fx, nn

from benchmarks.models import TINY, ZOO
from effcc.frontend import capture


def captured_graphs(model: nn.Module, args: tuple[Any, ...], training: bool = False) -> list[fx.GraphModule]:
    """Every graph that torch.compile hands us for one call of `model`, and for its gradients where `training`."""
    graphs: list[fx.GraphModule] = []

    def keep(graph_module: fx.GraphModule, inputs: Sequence[Any], signature: capture.Signature) -> Any:
        graphs.append(graph_module)
        return graph_module

    with torch.set_grad_enabled(training):
        result = capture.compile_apart(model, keep)(*args)
    if training:
        leaves = result if isinstance(result, tuple) else (result,)
        torch.stack([leaf.float().sum() for leaf in leaves]).sum().backward()
    return graphs


def describe(node: fx.Node) -> str:
    """A call's attributes: every argument that is neither a tensor nor a size, by the schema's name."""
    schema = node.target._schema  # type: ignore[union-attr]
    given = dict(zip((argument.name for argument in schema.arguments), node.args, strict=False)) | node.kwargs
    shown = []
    for name, value in given.items():
        if value is None or isinstance(value, fx.Node):
            continue
        if isinstance(value, list | tuple):
            nodes = sum(isinstance(item, fx.Node) for item in value)
            shown.append(f"{name}=[{nodes} tensors]" if nodes else f"{name}={'x'.join('n' for _ in value)}")
        elif name in ("start", "end", "index", "step") or isinstance(value, torch.SymInt):
            shown.append(f"{name}=n")
        else:
            shown.append(f"{name}={value}")
    dtypes = [str(meta.dtype).removeprefix("torch.") for meta in _tensors(node.meta.get("val"))]
    return f"({', '.join(shown)}) -> {', '.join(dtypes)}"


def _tensors(value: Any) -> Iterable[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    return [item for item in value if isinstance(item, torch.Tensor)] if isinstance(value, list | tuple) else []


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="the measured sizes instead of the tiny ones")
    parser.add_argument("--training", action="store_true", help="capture forward and backward halves")
    parser.add_argument("models", nargs="*", help="names from the zoo; all when left out")
    options = parser.parse_args()
    zoo = ZOO if options.full else TINY
    uses: collections.Counter[str] = collections.Counter()
    where: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    forms: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for name in options.models or zoo:
        for graph_module in captured_graphs(zoo[name].build(), zoo[name].inputs(0), options.training):
            for node in graph_module.graph.nodes:
                if node.op == "call_function":
                    overload = (
                        str(node.target) if isinstance(node.target, torch._ops.OpOverload) else node.target.__name__
                    )
                    uses[overload] += 1
                    where[overload][name] += 1
                    if isinstance(node.target, torch._ops.OpOverload):
                        forms[overload][describe(node)] += 1
                elif node.op == "get_attr":
                    uses["get_attr"] += 1
                    where["get_attr"][name] += 1
    for overload, count in sorted(uses.items()):
        print(f"{overload}  x{count}  in {', '.join(f'{name} {n}' for name, n in where[overload].items())}")
        for form, n in forms[overload].most_common(6):
            print(f"    x{n} {form}")


if __name__ == "__main__":
    main()
