"""What computes the inputs of layers, so that a factor of an input can move there: found by watching calls.

A *producer* is a parameter whose rows are the channels of what it computes: the weight (and bias) of a linear layer or
of a norm, or a vector that something is multiplied with. What it computes is followed, each element labelled by its
channel, through operations that pass factors of channels on: views, products with other tensors, ReLU, the values of
attention. Where all of it ends as inputs of linear layers, scaling the producer's rows scales these inputs, and nothing
else; where something else reads it (a residual sum, say), it is no producer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from effcc.compression.calibration import evaluating
from effcc.compression.calls import Call


@dataclass(frozen=True)
class Fed:
    """Linear layers whose inputs one producer computes.

    parameters: the producer's, by name; their first axis are its channels. layers: for each the producer's channel of
    every input channel. turns: whether no factor of single elements stands between, so that blocks of channels may
    also be turned.
    """

    parameters: tuple[str, ...]
    layers: tuple[tuple[str, tuple[int, ...]], ...]
    turns: bool


def producers(model: nn.Module, layers: Mapping[str, nn.Module], calls: Sequence[Call]) -> tuple[Fed, ...]:
    """The producers of inputs of the given dense nn.Linear layers, where every call shows the same ones.

    That they are is tried: with powers of two, by which products are exact, moved from them into the layers the first
    call has to give the same results.
    """
    names = Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))
    parameters = {id(p): name for name, p in model.named_parameters() if names[id(p)] == 1}
    weights = {id(m.weight): name for name, m in layers.items() if type(m) is nn.Linear}
    found: set[Fed] | None = None
    for call in calls:
        watching = _Watching(parameters, weights)
        with evaluating(model), torch.no_grad(), watching:
            output = call(model)
        fed = watching.fed(output)
        found = fed if found is None else found & fed
    made = tuple(sorted(found or (), key=lambda f: f.parameters))
    return made if made and _same_results(model, made, calls[0]) else ()


def _same_results(model: nn.Module, found: Sequence[Fed], call: Call) -> bool:
    """Whether a call gives the same where each producer's channels are multiplied by 1/2, 1 or 2, and divided again."""
    draw = torch.Generator().manual_seed(0)
    moved = {name: p.detach().clone() for name, p in model.named_parameters()}
    for fed in found:
        by = torch.randint(-1, 2, moved[fed.parameters[0]].shape[:1], generator=draw).float().exp2()
        for name in fed.parameters:
            moved[name] *= by.reshape(-1, *(1 for _ in moved[name].shape[1:])).to(moved[name])
        for layer, channels in fed.layers:
            moved[f"{layer}.weight".lstrip(".")] /= by[list(channels)].to(moved[fed.parameters[0]])
    with evaluating(model), torch.no_grad():
        before = call(model)
        after = functional_call(model, moved, call.args, dict(call.kwargs))
    return all(torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(*map(_floats, (before, after)), strict=True))


def _floats(output: Any) -> list[Tensor]:
    leaves = tree_leaves(dict(output) if hasattr(output, "keys") else output)
    return [t for t in leaves if isinstance(t, Tensor) and t.is_floating_point()]


@dataclass(frozen=True)
class _Origin:
    """Where a tensor comes from: a producer; `labels`, of the tensor's shape, are the producer's channels."""

    parameters: tuple[str, ...]
    labels: Tensor
    turns: bool = True


class _Watching(TorchFunctionMode):
    """One call of a model."""

    def __init__(self, parameters: Mapping[int, str], weights: Mapping[int, str]) -> None:
        super().__init__()
        self.parameters, self.weights = parameters, weights
        self.origins: Any = WeakIdKeyDictionary()
        self.uses: Counter[str] = Counter()
        self.escaped: set[tuple[str, ...]] = set()
        self.reached: dict[tuple[str, ...], dict[str, tuple[int, ...]]] = {}
        self.turned: dict[tuple[str, ...], bool] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if (name == "__get__" or name in ASKED) and not isinstance(output, Tensor):
            return output
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        self.uses.update(self.parameters[id(t)] for t in tensors if id(t) in self.parameters)
        before = [self.origins[t] for t in tensors if t in self.origins]
        rule = RULES.get(name)
        made = None if rule is None else rule(self, output, func, *args, **kwargs)
        self._record(output, made)
        on = [made] if isinstance(made, _Origin) else made or []
        passed = {o.parameters for o in on} | ({self.taken} if name == "linear" else set())
        self.escaped.update(o.parameters for o in before if o.parameters not in passed)
        return output

    taken: tuple[str, ...] = ()
    """The producer whose channels the last linear layer read."""

    def _record(self, output: Any, made: _Origin | list[_Origin] | None) -> None:
        if isinstance(made, _Origin):
            self.origins[output] = made
        elif made is not None:
            for part, origin in zip(output, made, strict=True):
                self.origins[part] = origin

    def origin(self, tensor: object) -> _Origin | None:
        found: _Origin | None = self.origins.get(tensor) if isinstance(tensor, Tensor) else None
        return found

    def made_by(self, output: Tensor, *owned: Tensor | None) -> _Origin | None:
        """The origin of what parameters compute, whose channels are the output's last axis."""
        given = [p for p in owned if p is not None]
        if not given or not all(id(p) in self.parameters for p in given):
            return None
        channels = torch.arange(output.shape[-1], dtype=torch.int32)
        return _Origin(tuple(self.parameters[id(p)] for p in given), channels.expand(output.shape))

    def read(self, x: object, weight: Tensor) -> None:
        """A linear layer reads a tensor: its producer is taken, if channels are the same in all rows."""
        origin, layer = self.origin(x), self.weights.get(id(weight))
        self.taken = ()
        if origin is None or layer is None:
            return
        rows = origin.labels.reshape(-1, origin.labels.shape[-1])
        if len(rows) and bool((rows == rows[:1]).all()):
            self.taken = origin.parameters
            self.reached.setdefault(origin.parameters, {})[layer] = tuple(rows[0].tolist())
            self.turned[origin.parameters] = self.turned.get(origin.parameters, True) and origin.turns

    def fed(self, output: Any) -> set[Fed]:
        """What was found, once the call is over; results of the model are read by others."""
        leaves = [self.origin(t) for t in tree_leaves(dict(output) if hasattr(output, "keys") else output)]
        escaped = self.escaped | {o.parameters for o in leaves if o is not None}
        weights = {name: f"{name}.weight".lstrip(".") for name in self.weights.values()}
        return {
            Fed(parameters, tuple(layers.items()), self.turned[parameters])
            for parameters, layers in self.reached.items()
            if parameters not in escaped
            and all(self.uses[p] == 1 for p in (*parameters, *(weights[n] for n in layers if n in weights)))
        }


def _moved(watching: _Watching, output: Any, func: Any, x: object, *args: Any, **kwargs: Any) -> Any:
    """Elements are moved or repeated; so are their labels."""
    origin = watching.origin(x)
    if origin is None or any(watching.origin(t) for t in tree_leaves((args, kwargs))):
        return None
    labels = func(origin.labels, *args, **kwargs)
    if isinstance(output, Tensor):
        return replace(origin, labels=labels)
    return [replace(origin, labels=part) for part in labels]


def _kept(watching: _Watching, output: Any, _: Any, x: object, *args: Any, **kwargs: Any) -> Any:
    """Elements stay where they are, and what they are (or are rounded)."""
    origin = watching.origin(x)
    return origin if origin is not None and output.shape == origin.labels.shape else None


def _rectified(watching: _Watching, output: Any, _: Any, x: object, *args: Any, **kwargs: Any) -> Any:
    """f(s x) = s f(x) for s > 0."""
    origin = watching.origin(x)
    return None if origin is None else replace(origin, turns=False)


def _multiplied(watching: _Watching, output: Any, _: Any, a: object, b: object, **kwargs: Any) -> Any:
    for vector, other in ((a, b), (b, a)):
        if isinstance(vector, nn.Parameter) and vector.shape == output.shape[-1:] and isinstance(other, Tensor):
            made = watching.made_by(output, vector)
            return None if made is None else replace(made, turns=False)
    first, second = watching.origin(a), watching.origin(b)
    found = first or second
    if found is None or (first is not None and second is not None):
        return None
    single = not isinstance(a if first is None else b, Tensor)
    return _Origin(found.parameters, found.labels.expand(output.shape), found.turns and single)


def _linear(watching: _Watching, output: Any, _: Any, input: Any, weight: Any, bias: Any = None) -> Any:
    watching.read(input, weight)
    return watching.made_by(output, weight, bias)


def _normalized(
    watching: _Watching,
    output: Any,
    _: Any,
    input: Any,
    shape: Any,
    weight: Any = None,
    bias: Any = None,
    *__: Any,
    **___: Any,
) -> Any:
    made = watching.made_by(output, weight, bias) if weight is not None and weight.ndim == 1 else None
    return None if made is None else replace(made, turns=False)


def _mixed(watching: _Watching, output: Any, _: Any, weights: object, values: object, *args: Any, **kwargs: Any) -> Any:
    """Rows are mixed, which leaves channels what they are, if every row has the same."""
    origin = watching.origin(values)
    if origin is None or watching.origin(weights) is not None or origin.labels.ndim < 2:
        return None
    row = origin.labels[..., :1, :]
    if not bool((origin.labels == row).all()) or row.shape[-1] != output.shape[-1]:
        return None
    if row.ndim == output.ndim >= 3 and row.shape[-3] != output.shape[-3]:  # heads that share keys and values
        row = row.repeat_interleave(output.shape[-3] // row.shape[-3], dim=-3)
    return replace(origin, labels=row.expand(output.shape))


def _attended(
    watching: _Watching, output: Any, func: Any, query: Any, key: Any, value: Any, *args: Any, **kwargs: Any
) -> Any:
    if any(watching.origin(t) is not None for t in (query, key)):
        for origin in filter(None, (watching.origin(query), watching.origin(key))):
            watching.escaped.add(origin.parameters)
    return _mixed(watching, output, func, None, value)


ASKED = frozenset(
    """size dim stride numel ndimension is_floating_point is_complex is_contiguous element_size storage_offset __len__
    data_ptr get_device is_inference""".split()  # noqa: SIM905
)
"""What is asked of tensors beside their numbers."""

MOVES = """view reshape transpose permute contiguous expand flatten unflatten unsqueeze squeeze clone __getitem__ chunk
    split repeat_interleave repeat movedim swapaxes narrow select unbind t detach"""

RULES: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(MOVES.split(), _moved),
    **dict.fromkeys(("to", "float", "half", "bfloat16", "double", "type_as", "dropout"), _kept),
    **dict.fromkeys(("relu", "leaky_relu"), _rectified),
    **dict.fromkeys(("mul", "multiply", "__mul__", "__rmul__"), _multiplied),
    **dict.fromkeys(("matmul", "__matmul__", "bmm"), _mixed),
    **dict.fromkeys(("layer_norm", "rms_norm"), _normalized),
    "linear": _linear,
    "scaled_dot_product_attention": _attended,
}
"""What becomes of labels, by the operation's name; through any other one nothing is followed."""
