"""What is run to see which operators are called, and how: PyTorch's operator samples, and models."""

from __future__ import annotations

import itertools
import logging
import warnings
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from effcc.errors import UnsupportedError
from effcc.fuzz.learned.calling import Unlike, described
from effcc.fuzz.learned.record import Arguments
from effcc.fuzz.learned.structure import key, slots

_SAMPLES = 8  # of an operator and dtype
_LOOKED_AT = 30
_CALLS = 3  # with the same slots
_FRAMES = 24  # kinds of slots of an operator

_DTYPES = (torch.float32, torch.int64, torch.bool)


class Calls(TorchDispatchMode):
    """Writes down which operators run while it is entered: those that PyTorch runs itself, and by `asked` those that a
    program asks for, which PyTorch then takes apart."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, dict[Any, list[Arguments]]] = defaultdict(dict)
        self.unlike: dict[str, str] = {}
        self.asked = _Asked(self)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.add(func, args, kwargs or {})
        return func(*args, **(kwargs or {}))

    def add(self, function: Any, args: Any, kwargs: Any) -> None:
        """A call."""
        if not isinstance(function, torch._ops.OpOverload) or function.namespace != "aten":
            return
        schema = function._schema
        named = dict(zip((a.name for a in schema.arguments), args, strict=False)) | kwargs
        operator = str(function)
        try:
            held = {a.name: described(named[a.name]) for a in schema.arguments if _is_told(a, named)}
            frame = key(slots(operator, held))
        except Unlike as unlike:
            self.unlike.setdefault(operator, str(unlike))
            return
        calls = self.found[operator].setdefault(frame, []) if self._room(operator, frame) else []
        if len(calls) < _CALLS and held not in calls:
            calls.append(held)

    def _room(self, operator: str, frame: Any) -> bool:
        return frame in self.found[operator] or len(self.found[operator]) < _FRAMES


def _is_told(argument: Any, named: Any) -> bool:
    if argument.name not in named or argument.name in ("device", "pin_memory"):
        return False
    value = named[argument.name]
    if isinstance(value, Tensor) or not argument.has_default_value():
        return True
    return bool(value != argument.default_value)


class _Asked(TorchFunctionMode):
    def __init__(self, calls: Calls) -> None:
        super().__init__()
        self._calls = calls

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        packet = getattr(torch.ops.aten, name, None) if name and not name.startswith("__") else None
        if packet is not None:
            try:
                found = torch._C._jit_resolve_packet(f"aten::{name}", *args, **kwargs)
            except RuntimeError:
                found = ""  # Python's function takes other arguments than the operator
            if found:
                with torch._C.DisableTorchFunction():
                    self._calls.add(getattr(packet, found), args, kwargs)
        return func(*args, **kwargs)


def opdb(calls: Calls, only: Collection[str] | None = None) -> None:
    """The samples of PyTorch's operator database, in place, too; of `only` these names.

    Raises UnsupportedError where it is not installed.
    """
    try:
        from torch.testing._internal import common_methods_invocations as database
    except ImportError as error:
        raise UnsupportedError(
            f"PyTorch's operator samples cannot be imported ({error}): pip install expecttest, or leave out 'opdb'"
        ) from error
    # The database seeds random operators inside the call, which is no part of it.
    setattr(database, "wrapper_set_seed", lambda op, *args, **kwargs: op(*args, **kwargs))  # noqa: B010
    for op in database.op_db:
        if only is not None and op.name not in only:
            continue
        for dtype in _DTYPES:
            if dtype in op.supported_dtypes("cpu"):
                for function, args, kwargs in _samples(op, dtype):
                    _run(calls, partial(function, *args, **kwargs))


def _samples(op: Any, dtype: torch.dtype) -> Iterator[tuple[Any, Any, Any]]:
    torch.manual_seed(0)
    try:
        found = list(itertools.islice(op.sample_inputs("cpu", dtype), _LOOKED_AT))
    except Exception:  # samples that need what is not here
        return
    step = max(1, len(found) // _SAMPLES)
    for sample in [*found[:2], *found[2::step]]:
        yield op.get_op(), (sample.input, *sample.args), sample.kwargs
        inplace = op.get_inplace()
        if inplace is not None and isinstance(sample.input, Tensor) and not sample.broadcasts_input:
            yield inplace, (sample.input.clone(), *sample.args), sample.kwargs


def models(calls: Calls, only: Collection[str] | None = None) -> None:
    """Small models: convolutions, recurrent cells, a transformer, losses."""
    torch.manual_seed(0)
    for name, (module, given) in _models().items():
        if only is None or name in only:
            _run(calls, partial(module, *given))


def _models() -> dict[str, tuple[nn.Module, tuple[Any, ...]]]:
    image, words, rows = torch.randn(2, 3, 12, 12), torch.randint(0, 11, (2, 5)), torch.randn(2, 5, 8)
    vision = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 3, groups=4, dilation=2), nn.GroupNorm(2, 4), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, 5), nn.Softmax(-1),
    ).eval()  # fmt: skip
    decoder = nn.Sequential(
        nn.ConvTranspose2d(3, 2, 3, stride=2, output_padding=1), nn.PixelShuffle(1), nn.Upsample(scale_factor=2),
        nn.AvgPool2d(2), nn.InstanceNorm2d(2), nn.Hardswish(), nn.ZeroPad2d(1),
    )  # fmt: skip
    language = nn.Sequential(
        nn.Embedding(11, 8), nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True), nn.LayerNorm(8),
        nn.Linear(8, 11), nn.LogSoftmax(-1),
    )  # fmt: skip
    return {
        "vision": (vision, (image,)), "decoder": (decoder, (image,)), "language": (language, (words,)),
        "gru": (nn.GRU(8, 4, batch_first=True), (rows,)), "lstm": (nn.LSTM(8, 4, batch_first=True), (rows,)),
        "attention": (nn.MultiheadAttention(8, 2, batch_first=True), (rows, rows, rows)),
        "bilinear": (nn.Bilinear(8, 8, 3), (rows, rows)), "loss": (nn.SmoothL1Loss(), (rows, rows + 1)),
        "cross entropy": (nn.CrossEntropyLoss(), (torch.randn(4, 5), torch.tensor([0, 1, 4, 2]))),
    }  # fmt: skip


SOURCES: dict[str, Callable[..., None]] = {"opdb": opdb, "models": models}
"""What `--from` names, beside files."""


def _run(calls: Calls, run: Callable[[], Any]) -> None:
    logging.getLogger("torch").setLevel(logging.CRITICAL)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            with calls.asked, calls:
                run()
        except Exception:  # a sample that this machine cannot run says nothing of an operator
            return
