"""Which tensors go from module to module: what several read of one module's output is worth keeping in bytes.

A tensor is known by its identity while a call runs: modules returned it, convolutions were given it, functions outside
of these read it. What a module returned in all of its runs must have gone to the same convolutions; of several modules
that returned a tensor (a block, and the activation at its end) the innermost one that runs for nothing else is taken.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

ADDITIONS = frozenset({torch.add, torch.Tensor.add, torch.Tensor.__add__, torch.Tensor.__iadd__, torch.Tensor.add_})


@dataclass(frozen=True)
class Shared:
    """Modules whose output is worth keeping in bytes: `given`, with the convolutions that read it; `added`, where it
    waits for what is computed after it and added to it."""

    given: Mapping[str, tuple[str, ...]]
    added: tuple[str, ...]


@dataclass(eq=False)
class _Seen:
    """One tensor of a call, the `order`-th: the modules that returned it, innermost first, and who read it."""

    order: int
    modules: list[str] = field(default_factory=list)
    convolutions: list[str] = field(default_factory=list)
    functions: int = 0
    added_to: list[_Seen] = field(default_factory=list)


class Flow:
    """The tensors of all calls that are watched.

    _of, _read: by module what it returned, and by convolution what it was given. _others: modules that returned
    something else; _strangers: convolutions that were given what no module had returned.
    """

    def __init__(self, convolutions: Collection[str]) -> None:
        self.convolutions = frozenset(convolutions)
        self._of: dict[str, list[_Seen]] = defaultdict(list)
        self._read: dict[str, list[_Seen]] = defaultdict(list)
        self._others: set[str] = set()
        self._strangers: set[str] = set()
        self._alive: dict[tuple[int, int], tuple[Tensor, _Seen]] = {}
        self._count = self._inside = 0

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Watch one call of the model."""
        handles: list[Any] = []
        for name, module in model.named_modules():
            if name in self.convolutions:
                # Before other hooks: what these do to its input is no reading of the model's.
                entered = self._entered(name)
                handles.append(module.register_forward_pre_hook(entered, prepend=True, with_kwargs=True))
            handles.append(module.register_forward_hook(self._returned(name)))
        try:
            with _Functions(self._called):
                yield
        finally:
            self._alive.clear()
            self._inside = 0
            for handle in handles:
                handle.remove()

    def shared(self) -> Shared:
        """What was worth keeping in all calls."""
        given = {name: self._readers(name) for name in self._innermost(self._is_given)}
        return Shared(given, tuple(self._innermost(lambda name: self._waits(name, given))))

    def _innermost(self, fits: Callable[[str], bool]) -> list[str]:
        known = {name: fits(name) for name in self._of}
        tensors = dict.fromkeys(t for own in self._of.values() for t in own)
        found = (next((name for name in t.modules if known[name]), None) for t in tensors)
        return [name for name in dict.fromkeys(found) if name is not None]

    def _readers(self, name: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self._of[name][0].convolutions))

    def _is_given(self, name: str) -> bool:
        """Whether some convolutions read all that a module returned, and nothing else, and are not alone in that."""
        own, readers = self._of[name], self._readers(name)
        return (
            bool(readers)
            and name not in self._others
            and not self._strangers & {*readers}
            and all(set(t.convolutions) == set(readers) and t.functions + len(readers) > 1 for t in own)
            and all(name in t.modules for reader in readers for t in self._read[reader])
        )

    def _waits(self, name: str, given: Collection[str]) -> bool:
        """Whether all that reads what a module returned is a sum with what is computed later, and not kept in bytes."""

        def waits(tensor: _Seen) -> bool:
            alone = not tensor.convolutions and 0 < tensor.functions == len(tensor.added_to)
            return alone and all(o.order > tensor.order and not {*o.modules} & {*given} for o in tensor.added_to)

        return name not in self._others and all(map(waits, self._of[name]))

    # What happens in a call

    def _seen(self, tensor: object) -> _Seen | None:
        found = self._alive.get(_identity(tensor)) if isinstance(tensor, Tensor) else None
        return None if found is None else found[1]

    def _entered(self, name: str) -> Callable[..., None]:
        def see(module: nn.Module, args: Any, kwargs: Any) -> None:
            self._inside += 1
            seen = self._seen(args[0] if args else kwargs["input"])
            if seen is None:
                self._strangers.add(name)
                return
            seen.convolutions.append(name)
            self._read[name].append(seen)

        return see

    def _returned(self, name: str) -> Callable[..., None]:
        def see(module: nn.Module, args: Any, output: Any) -> None:
            self._inside -= name in self.convolutions
            if not isinstance(output, Tensor):
                self._others.add(name)
                return
            seen = self._seen(output)
            if seen is None:
                self._count += 1
                seen = _Seen(self._count)
                self._alive[_identity(output)] = output, seen
            seen.modules.append(name)
            self._of[name].append(seen)

        return see

    def _called(self, function: object, args: Any) -> None:
        """A function is about to run, which may change what it is given."""
        if self._inside:
            return
        flat = (x for a in args for x in (a if isinstance(a, list | tuple) else (a,)))
        read = [seen for x in flat if (seen := self._seen(x)) is not None]
        for one in read:
            one.functions += 1
        if function in ADDITIONS and len(read) == 2:
            for one, other in (read, read[::-1]):
                one.added_to.append(other)


def _identity(tensor: Tensor) -> tuple[int, int]:
    return id(tensor), -1 if tensor.is_inference() else tensor._version


class _Functions(TorchFunctionMode):
    """Tells of functions of tensors, but not of what only asks for their shape or type."""

    def __init__(self, see: Callable[[object, Any], None]) -> None:
        super().__init__()
        self.see = see

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(function, "__name__", "") not in ("__get__", "size", "dim", "is_inference"):
            with torch._C.DisableTorchFunction():
                self.see(function, args)
        return function(*args, **(kwargs or {}))
