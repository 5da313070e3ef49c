"""Other compilers on the programs of `effcc.fuzz.programs`, held to the bounds that effcc is held to.

    effcc fuzz --against inductor,onnxruntime,openvino

Any backend of torch.compile by name; ONNX Runtime and OpenVINO over an ONNX export, whose calls are compared by their
results alone. Where a peer differs from eager by more than other orders of computation do (`Disturbed`), that is a
divergence: it is kept apart from effcc's failures, with a script. What a peer refuses is counted: what cannot be
exported or captured, and operators that it does not have. What PyTorch's own `aot_eager` does likewise is not the
peer's either.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from effcc.errors import InputError, UnknownNameError
from effcc.fuzz.beside import Kind, Outcomes, answer_cases, run_cases
from effcc.fuzz.journal import Before, Journal
from effcc.fuzz.programs.calling import Raised, Seen, Through, compiled, eager, observe
from effcc.fuzz.programs.case import Case as Program
from effcc.fuzz.programs.draw import draw
from effcc.fuzz.programs.judge import INVALID, PYTORCH, REFUSED, difference
from effcc.fuzz.programs.judge import Failure as ProgramFailure
from effcc.fuzz.programs.oracle import TRIALS, Disturbed
from effcc.fuzz.programs.script import script_of
from effcc.fuzz.programs.smaller import smaller

CALLS = 2  # of a program, at most: each may be compiled anew


class Refused(Exception):
    """A peer has no such program."""


@dataclass(frozen=True)
class Peer:
    """A compiler. exports: how an exported program becomes what is called with tensors; None: a backend of
    torch.compile. needs: packages that it imports. lines: a script's, that make `compiled` of `other`."""

    name: str
    exports: Callable[[Path], Callable[[dict[str, Any]], Sequence[Any]]] | None = None
    needs: tuple[str, ...] = ()
    lines: str = ""

    def program(self, seed: int) -> Program:
        """The program of a seed, called as the peer can be."""
        drawn = replace(draw(seed), way="compiled", target="host", export=self.exports is not None)
        if self.exports is None:
            return replace(drawn, calls=drawn.calls[:CALLS])
        return replace(drawn, calls=drawn.calls[:1], mode="no_grad", learned=(), change="", dynamic=False)

    def through(self, case: Program) -> Through:
        """How a program becomes what is called."""
        return compiled(case, self.name) if self.exports is None else self.exported

    def exported(self, program: nn.Module, given: Sequence[Any]) -> Callable[..., tuple[Tensor, ...]]:
        """What runs an exported program. Raises Refused."""
        assert self.exports is not None
        if not all(isinstance(g, Tensor) and g.dtype not in _WITHOUT_NUMPY for g in given):
            raise Refused("an argument that NumPy does not have")
        with tempfile.TemporaryDirectory(prefix="effcc-fuzz-") as folder:
            path = Path(folder, "m.onnx")
            names = _export(program, tuple(given), path)
            try:
                call = self.exports(path)
            except Exception as error:  # what its importer says of an operator that it does not have
                raise Refused(f"{type(error).__name__}: {error}") from error

        def run(*values: Tensor) -> tuple[Tensor, ...]:
            arrays = [v.numpy(force=True) for v in values]
            return tuple(torch.from_numpy(r) for r in call(dict(zip(names, arrays, strict=True))))

        return run


_WITHOUT_NUMPY = (torch.bfloat16, torch.complex32)


def _export(program: nn.Module, given: tuple[Any, ...], path: Path) -> list[str]:
    """Write a program as ONNX; the names of its inputs. Raises Refused."""
    names = [f"input_{k}" for k in range(len(given))]
    try:
        with contextlib.redirect_stdout(None):
            torch.onnx.export(program, given, path, dynamo=True, verbose=False, input_names=names)
    except Exception as error:  # whatever is raised is the exporter's
        raise Refused(f"{type(error).__name__}: {error}") from error
    return names


def _onnxruntime(path: Path) -> Callable[[dict[str, Any]], Sequence[Any]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options)
    known = {item.name for item in session.get_inputs()}
    return lambda given: list(session.run(None, {n: v for n, v in given.items() if n in known}))


def _openvino(path: Path) -> Callable[[dict[str, Any]], Sequence[Any]]:
    import openvino

    settings = {"INFERENCE_NUM_THREADS": str(torch.get_num_threads()), "INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.Core().compile_model(str(path), "CPU", settings).create_infer_request()
    known = {name for item in request.model_inputs for name in item.get_names()}

    def call(given: dict[str, Any]) -> list[Any]:
        found = request.infer({n: v for n, v in given.items() if n in known})
        return [found[k] for k in range(len(request.model_outputs))]

    return call


_EXPORTED = """    from effcc.fuzz.peers import peer_of
    compiled = peer_of("{name}").exported(other, inputs(**{calls}))"""

EXPORTING: dict[str, Peer] = {
    p.name: p
    for p in (
        Peer("onnxruntime", _onnxruntime, ("onnx", "onnxscript", "onnxruntime"), _EXPORTED),
        Peer("openvino", _openvino, ("onnx", "onnxscript", "openvino"), _EXPORTED),
    )
}


def peer_of(name: str) -> Peer:
    """The peer of a name. Raises UnknownNameError, which lists those that are known, and InputError where one is not
    installed."""
    found = EXPORTING.get(name)
    backends = sorted({*torch._dynamo.list_backends(), *torch._dynamo.list_backends(exclude_tags=())} - {"effcc"})
    if found is None and name not in backends:
        known = sorted([*EXPORTING, *backends])
        error = UnknownNameError("peer", name, known, "(--against)")
        raise UnknownNameError("peer", name, known, f"known: {', '.join(known)} (--against)") if error.near else error
    if found is None:
        try:
            torch._dynamo.lookup_backend(name)
        except Exception as error:  # whatever the backend's own imports raise
            raise InputError(f"{name}: expected a backend that can be imported: {error}") from error
        return Peer(name, lines='    compiled = torch.compile(other, backend="{name}", dynamic={dynamic})')
    missing = [p for p in found.needs if importlib.util.find_spec(p) is None]
    if missing:
        raise InputError(f"{name}: expected the packages {', '.join(missing)}; pip install 'effcc[peers]'")
    return found


def peers_of(names: str) -> tuple[str, ...]:
    """Names with commas between them, each of a peer that there is. Raises UnknownNameError and InputError."""
    return tuple(peer_of(n).name for n in dict.fromkeys(n.strip() for n in names.split(",")) if n)


# Judging --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A program for a peer; default: the one of the seed, as the peer can be called."""

    seed: int
    peer: str
    program: Program | None = None

    @property
    def drawn(self) -> Program:
        """The program."""
        return self.program or peer_of(self.peer).program(self.seed)


@dataclass(frozen=True)
class Divergence:
    """A case that a peer computes in another way than eager: of which kind, and how."""

    case: Case
    kind: str
    message: str

    def __str__(self) -> str:
        told = (self.message.splitlines() or [""])[0]
        return f"{self.case.peer}, program {self.case.seed}, {self.kind}: {told[:200]}"

    def resembles(self, other: Divergence) -> bool:
        """Whether both are likely one bug."""
        mine, theirs = (ProgramFailure(f.case.drawn, f.kind, f.message) for f in (self, other))
        return self.case.peer == other.case.peer and mine.resembles(theirs)


def judge(case: Case) -> Divergence | str:
    """The divergence of a case, or what became of it: "" (as eager), `refused`, `invalid`, or `pytorch`, where
    PyTorch's own `aot_eager` differs from eager likewise."""
    peer, program = peer_of(case.peer), case.drawn
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = program.load()
        expected = _plain(peer, observe(program, loaded, eager))
        if not expected or isinstance(expected[-1], Raised):
            return INVALID
        got = _plain(peer, observe(program, loaded, peer.through(program)))
        if difference(expected, got, []) is None:
            return ""
        if _is_refusal(got):
            return REFUSED
        modes = [Disturbed(seed, strict=not program.trains) for seed in range(TRIALS)]
        trials = [_plain(peer, observe(program, loaded, eager, mode)) for mode in modes]
        found = difference(expected, got, trials)
        if found is None:
            return ""
        if peer.exports is None:
            torch._dynamo.reset()
            other = difference(expected, observe(program, loaded, compiled(program, "aot_eager")), trials)
            if other is not None and other[0] == found[0]:
                return PYTORCH
        return Divergence(replace(case, program=program), *found)


def _plain(peer: Peer, seen: Sequence[Seen | Raised]) -> list[Seen | Raised]:
    """What is seen; of an export, which knows no strides, without these."""
    if peer.exports is None:
        return list(seen)
    return [replace(s, strides=()) if isinstance(s, Seen) else s for s in seen]


def _is_refusal(got: Sequence[Seen | Raised]) -> bool:
    error = got[-1].error if isinstance(got[-1], Raised) else None
    if isinstance(error, torch._dynamo.exc.BackendCompilerFailed):
        return False
    return isinstance(error, (Refused, torch._dynamo.exc.TorchDynamoException))


# Campaigns ------------------------------------------------------------------------------------------------------------


class PeerReport(Outcomes[Divergence]):
    """What became of the programs, counted, and the divergences with their files. These are no failures of effcc."""

    @property
    def programs(self) -> int:
        """How many were compared."""
        return self.counts[""] + self.counts["failed"]

    @property
    def by_peer(self) -> dict[str, int]:
        """Divergences by peer."""
        names = [f.case.peer for f in self.failures]
        return {n: names.count(n) for n in dict.fromkeys(names)}

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        found = [
            {"peer": f.case.peer, "seed": f.case.seed, "kind": f.kind, "message": f.message} for f in self.failures
        ]
        return {
            "seed": self.seed, "programs": self.programs, "seconds": self.seconds, "refused": self.counts[REFUSED],
            "pytorch": self.counts[PYTORCH], "divergences": found, "files": [str(f) for f in self.files],
        }  # fmt: skip

    def __str__(self) -> str:
        apart = f"{self.counts[PYTORCH]} where aot_eager differs likewise, {self.counts[REFUSED]} refused"
        told = f"{self.programs} programs through peers in {self.seconds:.0f} s ({apart})"
        counts = ", ".join(f"{n} {c}" for n, c in self.by_peer.items())
        lines = [f"divergences of peers: {counts}" if counts else "no divergences", *(f"  {f}" for f in self.failures)]
        return "\n".join([told, *lines, *(f"  written: {path}" for path in self.files)])


def _smaller(case: Case) -> Iterator[Case]:
    exports = peer_of(case.peer).exports is not None
    for program in smaller(case.drawn):
        if program.way == "compiled" and program.export == exports:
            yield replace(case, program=program)


def _script(failure: Divergence) -> str:
    peer, program = peer_of(failure.case.peer), failure.case.drawn
    how = peer.lines.format(name=peer.name, dynamic=program.dynamic, calls=dict(program.calls[0]))
    return script_of(program, str(failure), failure.message, how, f"peer_{failure.case.seed}.py")


def kind_of(names: Sequence[str]) -> Kind[Case, Divergence]:
    """Programs for some peers, one after the other."""

    def case(seed: int) -> Case:
        return Case(seed, names[seed % len(names)])

    return Kind(
        "peer", "effcc.fuzz.peers:main", case, _smaller, _script, lambda case, why: Divergence(case, "process", why),
        renewed=40, asked=case, others=True,
    )  # fmt: skip


def main() -> None:
    """In the process: answer requests until the input ends."""
    logging.disable(logging.CRITICAL)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = os.path.join(os.environ["EFFCC_CACHE_DIR"], "inductor")
    import torch._inductor.config

    torch._inductor.config.compile_threads = 1
    answer_cases(lambda seed: Case(seed, "inductor"), judge)


def run_peers(
    minutes: float,
    names: Sequence[str],
    seed: int = 0,
    output: Path | None = None,
    *,
    most: int | None = None,
    reduce_seconds: float = 60.0,
    journal: Journal | None = None,
    before: Before | None = None,
) -> PeerReport:
    """Compare peers on the programs of `seed` and following, for so long or until `most` were compared.

    journal: where what is done and found is written at once. before: of the campaign that is gone on with.
    """
    report = PeerReport(seed)
    run_cases(
        kind_of(names), report, lambda: most is not None and report.programs >= most, minutes, seed, output,
        reduce_seconds, journal, before,
    )  # fmt: skip
    return report
