"""How a case is wrong: storing, what is stored, copies of the module, calls of what is compiled, packages, training."""

from __future__ import annotations

import copy
import io
import pickle
import tempfile
import traceback
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import effcc
from effcc.compression.install import held_by
from effcc.compression.modules import EncodedModule
from effcc.errors import EffccError, FaultWarning
from effcc.frontend.decode import to_numpy
from effcc.fuzz.modules.case import Case
from effcc.fuzz.modules.damage import damaged
from effcc.fuzz.modules.stores import wrongly_stored
from effcc.fuzz.modules.twins import difference, expected, plain_twin
from effcc.target import Target

REFUSED = "refused"
INVALID = "invalid"


@dataclass(frozen=True)
class Failure:
    """A case that failed: at which step (`store`, `copies`, `compiled`, `package`, ...), and how."""

    case: Case
    step: str
    message: str

    def __str__(self) -> str:
        return f"module {self.case.seed}, {self.step}: {self.message.splitlines()[0][:200]}"

    def resembles(self, other: Failure) -> bool:
        """Whether both are likely one bug."""
        return self.step == other.step and self.message.split(":")[0][:40] == other.message.split(":")[0][:40]


class Wrong(Exception):
    """What a step found."""


def judge(case: Case, steps: Collection[str] = ()) -> Failure | str:
    """The failure of a case, or what became of it: "" (right), `refused` (its storing), `invalid` (eager refuses it).

    steps: what is looked at; if nothing is said, what the case says and what is always.
    """
    wanted = steps or (*case.checks, *ALWAYS)
    torch._dynamo.reset()
    loaded = case.load()
    try:
        model = loaded.dense()
        with torch.no_grad():
            for n in case.batches:
                model(loaded.inputs(n))
    except (RuntimeError, ValueError, IndexError):
        return INVALID
    step = "store"
    try:
        with _without_faults():
            dense = copy.deepcopy(model)
            if not _stored(loaded, model):
                return REFUSED
            for step, check in STEPS.items():
                if step in wanted:
                    check(case, loaded, dense, model)
    except Wrong as found:
        return Failure(case, step, str(found))
    except Exception as error:  # a compiler must not raise on what eager runs, whatever it raises
        return Failure(case, step, told(error))
    return ""


def told(error: BaseException) -> str:
    """An error in words: its kind, message and where it came from."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "torch" not in f.filename]
    at = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{at}: {error}\n" + "".join(traceback.format_exception(error))[-3000:]


@contextmanager
def _without_faults() -> Iterator[None]:
    """What effcc fails to compile, and leaves to PyTorch, is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", FaultWarning)
        yield


def _stored(loaded: Any, model: nn.Module) -> bool:
    """Store the weights; False where that is refused, which must leave the model as it was."""
    for store in loaded.STORING:
        before = dict(_classes(model)), _bytes(model)
        try:
            store(model)
        except EffccError:
            if before != (dict(_classes(model)), _bytes(model)):
                raise Wrong("a refusal changed the model") from None
            return False
    return any(isinstance(m, EncodedModule) for m in model.modules())


def _classes(model: nn.Module) -> Iterator[tuple[str, str]]:
    for name, module in model.named_modules():
        yield name, f"{type(module).__name__} {getattr(module, 'encoding', '')} {module.training}"


def _bytes(model: nn.Module) -> dict[str, bytes]:
    return {n: _raw(t) for n, t in model.state_dict().items()}


def _raw(tensor: Tensor) -> bytes:
    return bytes(to_numpy(tensor).tobytes())


def _check_numbers(case: Case, loaded: Any, dense: nn.Module, model: nn.Module) -> None:
    """What is stored is near what was given, and eager computes with it."""
    by_name = dict(dense.named_modules())
    nearest = not any(word in case.text for word in ("data=", "factorize", "sparsify", "hadamard"))
    largest = "effcc.sparsify" in case.storing[0] and "method=" not in case.storing[0]
    stored_once: dict[int, Any] = {}
    for name, module in model.named_modules():
        held = held_by(module)
        if held is not None:
            source: Any = by_name[name]
            problem = wrongly_stored(held, to_numpy(source.weight), nearest, largest)
            first: Any = stored_once.setdefault(id(source.weight), module)
            if any(getattr(first, c) is not getattr(module, c) for c in first.weight_components):
                problem = "another module has the same weight, and other components"
            if problem:
                raise Wrong(f"{held.storage.encoding} of {name} is wrong: {problem}")
    twin = plain_twin(model)
    x = loaded.inputs(case.batches[0])
    with torch.no_grad():
        if not torch.equal(twin(x).nan_to_num(), model(x).nan_to_num()):
            raise Wrong("eager computes with other numbers than it decodes")


def _check_copies(case: Case, loaded: Any, dense: nn.Module, model: nn.Module) -> None:
    """Copies of any kind compute the same, bit by bit."""
    x = loaded.inputs(case.batches[0])
    made: dict[str, Callable[[Path], nn.Module]] = {
        "deepcopy": lambda folder: copy.deepcopy(model),
        "pickle": lambda folder: pickle.loads(pickle.dumps(model)),
        "torch.save": lambda folder: _saved_by_torch(model),
        "state_dict": lambda folder: _through_state(loaded, model),
        "save": lambda folder: effcc.load_into(loaded.dense(), effcc.save(model, folder / "m.safetensors")),
    }
    with torch.no_grad(), tempfile.TemporaryDirectory(prefix="effcc-fuzz-") as folder:
        want = model(x)
        for how, make in made.items():
            other = make(Path(folder))
            if _raw(other(x)) != _raw(want):
                raise Wrong(f"a copy by {how} computes something else")
            if {n: _raw(t) for n, t in other.state_dict().items()} != _bytes(model):
                raise Wrong(f"a copy by {how} holds something else")


def _saved_by_torch(model: nn.Module) -> Any:
    stream = io.BytesIO()
    torch.save(model, stream)
    stream.seek(0)
    return torch.load(stream, weights_only=False)


def _through_state(loaded: Any, model: nn.Module) -> nn.Module:
    """Another model, stored likewise, that takes the first one's state."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for tensor in other.state_dict().values():
            tensor.zero_()
    other.load_state_dict(model.state_dict())
    return other


def _check_calls(case: Case, loaded: Any, dense: nn.Module, model: nn.Module) -> None:
    """The compiled module, call by call, and once more after a component changed."""
    target = case.target if Target.parse(case.target).runs_here() else "host"
    compiled = torch.compile(model, backend="effcc", dynamic=case.dynamic, options={"target": target})
    with torch.no_grad():
        for number, n in enumerate(case.batches):
            x = loaded.inputs(n, number)
            _require_right(compiled(x), model, x, f"call {number + 1} of {n}")
        if change_component(model, case):
            _require_right(compiled(x), model, x, f"call {len(case.batches) + 1}, a component changed")
        if "damage" in case.checks:
            for name, tensor, before in damaged(model, case.seed):
                _survives(lambda: compiled(x), f"the compiled module with damaged {name}")
                _survives(lambda: model(x), f"eager with damaged {name}")
                tensor.copy_(before)


def _require_right(got: Any, model: nn.Module, x: Tensor, when: str) -> None:
    problem = difference(got, expected(model, x))
    if problem:
        raise Wrong(f"{when}: {problem}")


def _survives(call: Callable[[], Any], what: str) -> None:
    try:
        call()
    except EffccError:
        pass
    except Exception as error:
        raise Wrong(f"{what} raises {told(error)}") from error


def change_component(model: nn.Module, case: Case) -> str:
    """Change an element of a stored weight, in one of the ways that users have; its name, if there is one."""
    stored = [m for m in model.modules() if isinstance(m, EncodedModule)]
    module: Any = stored[case.seed % len(stored)]
    names = [n for n in module.weight_components if getattr(module, n).dtype not in (torch.int32, torch.int64)]
    names = [n for n in names if "places" not in n]
    if not names:
        return ""
    name: str = names[case.seed // 7 % len(names)]
    tensor: Tensor = getattr(module, name)
    changed = tensor.detach().clone()
    flat = changed.view(-1)
    at = case.seed // 3 % flat.numel()
    flat[at] = flat[at] * 1.5 + 0.01 if tensor.is_floating_point() else flat[at] ^ 1
    match case.change:
        case "data":
            tensor.data.copy_(changed)
        case "numpy" if tensor.dtype != torch.bfloat16:
            tensor.detach().numpy()[...] = changed.numpy()
        case "load":
            full = next(n for n, t in model.state_dict(keep_vars=True).items() if t is tensor)
            model.load_state_dict({full: changed}, strict=False)
        case _:
            tensor.copy_(changed)
    return name


def _check_package(case: Case, loaded: Any, dense: nn.Module, model: nn.Module) -> None:
    """The exported module, loaded anew."""
    sizes = [n for n in case.batches if n > 1]
    if not sizes:
        return
    varies = case.dynamic is True
    batch = {0: torch.export.Dim("n", min=2, max=4096)}
    with torch.no_grad(), tempfile.TemporaryDirectory(prefix="effcc-fuzz-") as folder:
        first = loaded.inputs(sizes[0])
        try:
            made = effcc.export(model, (first,), Path(folder, "m.effcc"), dynamic_shapes=(batch,) if varies else None)
        except torch._dynamo.exc.UserError:
            return  # the size is not free
        package = effcc.load(made)
        for n in sizes if varies else sizes[:1]:
            x = loaded.inputs(n, n)
            _require_right(package(x), model, x, f"a package's call of {n}")


def _check_training(case: Case, loaded: Any, dense: nn.Module, model: nn.Module) -> None:
    """Gradients of what is trained, in the stored module as it is, compiled beside eager."""
    if case.dtype == "bfloat16" or not any(p.requires_grad for p in model.parameters()):
        return
    x = loaded.inputs(max(case.batches[0], 2))
    eager, other = copy.deepcopy(model), copy.deepcopy(model)
    compiled = torch.compile(other, backend="effcc", dynamic=case.dynamic)
    try:
        eager(x).double().square().mean().backward()
    except RuntimeError:
        return  # nothing that is trained reaches the result
    compiled(x).double().square().mean().backward()
    for (name, want), got in zip(eager.named_parameters(), other.parameters(), strict=True):
        if (want.grad is None) != (got.grad is None):
            raise Wrong(f"the gradient of {name} is there in eager or in compiled code only")
        if want.grad is not None and got.grad is not None:
            size = float(want.grad.abs().max()) if want.grad.numel() else 0.0
            off = float((want.grad - got.grad).abs().max()) if want.grad.numel() else 0.0
            if np.isfinite(size) and not off <= 2e-3 * size + 1e-6:
                raise Wrong(f"the gradient of {name} is off by {off:.3g} of {size:.3g}")


STEPS: dict[str, Callable[[Case, Any, nn.Module, nn.Module], None]] = {
    "numbers": _check_numbers,
    "copies": _check_copies,
    "training": _check_training,
    "package": _check_package,
    "compiled": _check_calls,
}
"""In order: the last changes the module."""
ALWAYS = ("numbers", "compiled")
