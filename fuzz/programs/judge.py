"""How a program is wrong when it is called otherwise than by eager."""

from __future__ import annotations

import contextlib
import re
import traceback
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from effcc.errors import EffccError, FaultWarning, UnsupportedError
from effcc.fuzz.programs.calling import Raised, Seen, Through, compiled, eager, exported, interpreted, observe
from effcc.fuzz.programs.case import Case
from effcc.fuzz.programs.known import known
from effcc.fuzz.programs.oracle import TRIALS, Disturbed, same_bits, within
from effcc.fuzz.programs.traced import Traced, Untraceable, beyond, can_be_beyond, can_be_traced, has_control_flow

INVALID = "invalid"
REFUSED = "refused"
PYTORCH = "pytorch"
KNOWN = "known"


@dataclass(frozen=True)
class Failure:
    """A case that failed: of which kind (`fault`, `raises`, `accepts`, `bits`, `values`, ...), and how."""

    case: Case
    kind: str
    message: str

    def __str__(self) -> str:
        return f"program {self.case.seed}, {self.kind}: {self.message.splitlines()[0][:200]}"

    def resembles(self, other: Failure) -> bool:
        """Whether both are likely one bug."""
        return self.kind == other.kind and _essence(self.message) == _essence(other.message)


def _essence(message: str) -> str:
    """A message without the numbers and names of one program."""
    first = message.splitlines()[0]
    return re.sub(r"[-+]?\d[\d.e+-]*|%\w+|/\S+|(call|result) \w+", "", first.split(" (eager")[0])[:60]


def judge(case: Case) -> Failure | str:
    """The failure of a case, or what became of it: "" (right), `refused`, `invalid`, `known`, or `pytorch`, where
    PyTorch's own `aot_eager` differs from eager likewise."""
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = case.load()
        if case.way in ("traced", "recorded") and can_be_traced(case, loaded):
            return _judge_traced(case, loaded)
        expected = observe(case, loaded, eager)
        if not expected:
            return INVALID
        through: Through = exported if case.export else compiled(case) if case.way == "compiled" else interpreted(case)
        with warnings.catch_warnings():
            warnings.simplefilter("error", FaultWarning)
            got = observe(case, loaded, through)
        if difference(expected, got, []) is None:  # bit by bit as eager: how far off it may be does not matter
            return _judge_beyond(case, loaded, through, expected)
        trials = _disturbed(case, loaded) if isinstance(expected[0], Seen) else ()
        found, seen = lasting(expected, got, trials, case.way == "interpreted" and _only_finite(case, loaded))
        if found is None:
            return _judge_beyond(case, loaded, through, expected)
        if case.export and _is_refusal(got):
            return REFUSED
        failure = Failure(case, *found)
        if known(failure):
            return KNOWN
        torch._dynamo.reset()
        if case.export and _fails_in_pytorch(case, loaded):
            return PYTORCH
        found = not_excused(
            expected, got, seen, observe(case, loaded, compiled(case, "aot_eager")),
            case.way == "interpreted" and _only_finite(case, loaded),
        )  # fmt: skip
        return PYTORCH if found is None else Failure(case, *found)


def _judge_beyond(case: Case, loaded: Any, through: Through, expected: Sequence[Seen | Raised]) -> Failure | str:
    """Once more with an index outside of what it indexes: what eager refuses must be refused, unless PyTorch leaves
    it out as nothing reads what it gives, or what is `expected` has no elements, which nothing is read for."""
    if not can_be_beyond(case) or _some_are_empty(expected):
        return ""
    ways: list[Through] = [eager, through, compiled(case, "aot_eager")]
    seen: list[list[Seen | Raised]] = []
    with beyond(loaded):
        for way in ways:
            torch._dynamo.reset()
            seen.append(observe(case, loaded, way))
            if not seen[-1] or isinstance(seen[-1][-1], Raised) is (len(seen) == 2):
                return ""
    raised = seen[0][-1]
    assert isinstance(raised, Raised)
    return Failure(case, "accepts", f"with an index outside: nothing is raised, eager raises {_told(raised.error)}")


def _judge_traced(case: Case, loaded: Any) -> Failure | str:
    if case.dynamic is not False and not case.trains and len(case.calls) > 1:
        with contextlib.suppress(Untraceable):
            return _judge_at_sizes(case, loaded)
    traced = Traced(case, loaded)
    expected = traced.in_eager()
    if any(isinstance(e, Raised) for e in expected):
        return INVALID
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", FaultWarning)
            got = traced.interpreted()
    except Untraceable:
        return INVALID
    if difference(expected, got, []) is None:
        return _judge_misplaced(case, traced, expected)
    if has_control_flow(case):
        expected = traced.in_eager(plain=False)
        if any(isinstance(e, Raised) for e in expected):
            return INVALID
    trials = (_sound(traced.in_eager(Disturbed(seed, strict=not case.trains))) for seed in range(TRIALS))
    found, seen = lasting(expected, got, trials, _only_finite(case, loaded))
    if found is None:
        return _judge_misplaced(case, traced, expected)
    if not isinstance(got[-1], Raised):
        found = not_excused(expected, got, seen, traced.traced_in_eager(), _only_finite(case, loaded))
        if found is None:
            return PYTORCH
    failure = Failure(case, *found)
    return KNOWN if known(failure) else failure


def _judge_misplaced(case: Case, traced: Traced, expected: Sequence[Seen | Raised]) -> Failure | str:
    """Once more with an index outside of what it indexes: what eager refuses must be refused, unless what is `expected`
    has no elements."""
    found = None if _some_are_empty(expected) else traced.misplaced()
    if found is None:
        return ""
    eager, mine, pytorch = found
    if isinstance(pytorch[-1], Seen):
        return ""  # what refuses it is no part of the trace
    wrong = difference(eager, mine, [])
    return Failure(case, wrong[0], f"with an index outside: {wrong[1]}") if wrong is not None else ""


def _some_are_empty(seen: Sequence[Seen | Raised]) -> bool:
    return any(isinstance(s, Seen) and isinstance(s.value, Tensor) and not s.value.numel() for s in seen)


def _judge_at_sizes(case: Case, loaded: Any) -> Failure | str:
    """All calls of a program by one graph, with symbols for the sizes that the first one has."""
    first, trace = Traced(case, loaded), None
    for number, sizes in enumerate(case.calls):
        call = Traced(case, loaded, number)
        expected = call.in_eager()
        if any(isinstance(e, Raised) for e in expected):
            if number == 0:
                return INVALID
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("error", FaultWarning)
            if trace is None:
                try:
                    trace = first.traced_at_sizes()
                except Untraceable:
                    raise
                except Exception:  # Dynamo may take other sizes for known: what users see is what counts
                    return judge(replace(case, way="interpreted", dynamic=True))
            got = call.at_sizes(trace)
        if got is None or difference(expected, got, []) is None:
            continue
        trials = (_sound(call.in_eager(Disturbed(seed))) for seed in range(TRIALS))
        found, seen = lasting(expected, got, trials, _only_finite(case, loaded))
        if found is None:
            continue
        found = not_excused(expected, got, seen, call.traced_in_eager_at_sizes(trace), _only_finite(case, loaded))
        if found is None:
            return PYTORCH
        failure = Failure(case, found[0], f"call {number + 1} at {dict(sizes)}: {found[1]}")
        return KNOWN if known(failure) else failure
    return ""


def _disturbed(case: Case, loaded: Any) -> Iterator[list[Seen | Raised]]:
    modes = (Disturbed(seed, strict=not case.trains) for seed in range(TRIALS))
    return (_sound(observe(case, loaded, eager, mode)) for mode in modes)


def _only_finite(case: Case, loaded: Any) -> bool:
    """Whether all that a case begins with is finite: an infinity or NaN then is an overflow."""
    given = [t for sizes in case.calls for t in loaded.inputs(**dict(sizes))]
    held = [*given, *loaded.Program().state_dict().values()]
    return all(bool(t.isfinite().all()) for t in held if t.is_floating_point())


def _sound(trial: list[Seen | Raised]) -> list[Seen | Raised]:
    """A disturbed run. Raises what it raised if that is the disturbance's own fault: without trials, nothing that is
    inexact could be compared."""
    last = trial[-1] if trial else None
    if isinstance(last, Raised) and isinstance(last.error, (TypeError, AttributeError, NameError)):
        raise last.error
    return trial


def _is_refusal(got: Sequence[Seen | Raised]) -> bool:
    last = got[-1]
    refusals = (UnsupportedError, torch._dynamo.exc.TorchDynamoException)
    return isinstance(last, Raised) and isinstance(last.error, refusals)


def _fails_in_pytorch(case: Case, loaded: Any) -> bool:
    """Whether PyTorch cannot export a program."""
    try:
        torch.export.export(loaded.Program(), tuple(loaded.inputs(**dict(case.calls[0])))).run_decompositions()
    except Exception:  # whatever is raised is PyTorch's
        return True
    return False


def lasting(
    expected: Sequence[Seen | Raised],
    got: Sequence[Seen | Raised],
    trials: Iterable[Sequence[Seen | Raised]],
    wider: bool = False,
) -> tuple[tuple[str, str] | None, list[Sequence[Seen | Raised]]]:
    """What is wrong still after all disturbed runs, and those. A run more only allows more, so none is made once
    nothing is wrong."""
    seen: list[Sequence[Seen | Raised]] = []
    for trial in trials:
        seen.append(trial)
        found = difference(expected, got, seen, wider)
        if found is None:
            return None, seen
    return difference(expected, got, seen, wider), seen


def difference(
    expected: Sequence[Seen | Raised],
    got: Sequence[Seen | Raised],
    trials: Sequence[Sequence[Seen | Raised]],
    wider: bool = False,
) -> tuple[str, str] | None:
    """The first thing that is not as it must be: its kind and a sentence. wider: where what was computed may be finite
    though eager's is not, as it was computed in float64."""
    return next((told for _, told in differences(expected, got, trials, wider)), None)


def not_excused(
    expected: Sequence[Seen | Raised],
    got: Sequence[Seen | Raised],
    trials: Sequence[Sequence[Seen | Raised]],
    pytorch: Sequence[Seen | Raised],
    wider: bool = False,
) -> tuple[str, str] | None:
    """The first difference of a kind that PyTorch's own compilation does not show at the same place."""
    excused = {(number, told[0]) for number, told in differences(expected, pytorch, trials)}
    found = differences(expected, got, trials, wider)
    return next((told for number, told in found if (number, told[0]) not in excused), None)


def differences(
    expected: Sequence[Seen | Raised],
    got: Sequence[Seen | Raised],
    trials: Sequence[Sequence[Seen | Raised]],
    wider: bool = False,
) -> Iterator[tuple[int, tuple[str, str]]]:
    """All that is not as it must be, with its place in what is expected; what comes after an error is not looked at."""
    for number, want in enumerate(expected):
        if number >= len(got):
            yield number, ("structure", f"{want.where} is missing")
            return
        have = got[number]
        if isinstance(have, Raised):
            problem = _raised(want, have)
            if problem is not None:
                yield number, problem
            return
        if isinstance(want, Raised):
            yield number, ("accepts", f"{want.where} raises nothing, eager raises {_told(want.error)}")
            return
        if have.where != want.where:
            yield number, ("structure", f"expected to see {want.where}, not {have.where}")
            return
        others = [t[number] for t in trials if number < len(t)]
        seen = [o for o in others if isinstance(o, Seen) and o.where == want.where]
        problem = _compared(want, have, seen, len(seen) < len(trials), wider)
        if problem is not None:
            yield number, (problem[0], f"{want.where}: {problem[1]}")
    if len(got) > len(expected):
        yield len(expected), ("structure", f"{got[len(expected)].where} is seen, too")


_FAMILIES = (RuntimeError, ValueError, IndexError, TypeError, NotImplementedError, ZeroDivisionError)


def _raised(want: Seen | Raised, have: Raised) -> tuple[str, str] | None:
    """What is wrong with an error: eager has none, or it is one of the compiler's own."""
    if isinstance(want, Seen):
        kind = "fault" if isinstance(have.error, FaultWarning) else "raises"
        return kind, f"{have.where} raises {_told(have.error)}"
    typed = isinstance(have.error, EffccError) and not isinstance(have.error, _FAMILIES)
    if typed or not isinstance(have.error, (*_FAMILIES, torch._dynamo.exc.TorchDynamoException)):
        return "errors", f"{have.where} raises {_told(have.error)}, eager {_told(want.error)}"
    return None


def _compared(
    want: Seen, have: Seen, trials: Sequence[Seen], lost: bool, wider: bool = False
) -> tuple[str, str] | None:
    if not isinstance(want.value, Tensor) or not isinstance(have.value, Tensor):
        same = type(want.value) is type(have.value) and (want.value == have.value or want.value != want.value)
        return None if same else ("facts", f"expected {_shown(want.value)}, got {_shown(have.value)}")
    eager, mine = want.value, have.value
    others = [t.value for t in trials if isinstance(t.value, Tensor)]
    inexact = lost or any(t.inexact for t in trials)
    if eager.dtype != mine.dtype:
        return "dtypes", f"expected {eager.dtype}, got {mine.dtype}"
    if eager.shape != mine.shape:
        if inexact and any(o.shape != eager.shape for o in others):
            return None
        return "shapes", f"expected {list(eager.shape)}, got {list(mine.shape)}"
    if want.strides and want.strides != have.strides:
        return "strides", f"expected {want.strides}, got {have.strides}"
    if lost:
        return None
    right = within(mine, eager, others) if inexact else same_bits(mine, eager)
    if inexact and wider and eager.is_floating_point():
        right |= ~eager.isfinite()
    if bool(right.all()):
        return None
    place = tuple((~right).nonzero()[0].tolist())
    spread = ", ".join(f"{float(o[place]):.9g}" for o in others[:3] if o.shape == eager.shape)
    near = f", disturbed {spread}" if inexact else ""
    return "values" if inexact else "bits", (
        f"{int((~right).sum())} of {right.numel()} elements of {eager.dtype} differ, the first at {list(place)}: "
        f"expected {eager[place].item()!r}, got {mine[place].item()!r}{near}"
    )


def _shown(value: Any) -> str:
    return f"a tensor {value.dtype}{list(value.shape)}" if isinstance(value, Tensor) else repr(value)


def _told(error: BaseException) -> str:
    """An error in words: its kind, message and where it came from."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/torch/" not in f.filename]
    at = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    first = str(error).strip().splitlines() or [""]
    lines = "".join(traceback.format_exception(error))[-3000:]
    return f"{type(error).__name__}{at}: {first[0]}\n{lines}"
