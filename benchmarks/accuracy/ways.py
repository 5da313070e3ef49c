"""The ways that each subject is stored, by name: at equal bytes effcc's schemes and methods, budgets, and peers."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from benchmarks.accuracy import digits, peers
from benchmarks.accuracy.formats import Store, budgeted, quantized
from benchmarks.accuracy.kept import Kept
from benchmarks.accuracy.subjects import SmolLM2, Subject

SCHEMES = (
    'iq4(group=32,scale="f16")',
    'int4(group=32,scale="f16")',
    'iq4(group=64,scale="f16")',
    'int4(group=64,scale="f16")',
    'iq4(group=32,scale="i6",super=256)',
    'int4(group=32,scale="i6",super=256)',
)
"""Of 4.5 bits, and of 4.25 or little more."""

CHOSEN = (
    'int5(group=32,scale="i6",super=256)',
    'iq4(group=32,scale="i6",super=256)',
    'iq4(group=64,scale="f16")',
    'int3(group=32,scale="i6",super=256)',
)
"""Among which a budget chooses."""

OTHERS = ("awq", "hadamard", "awq+gptq", "hadamard+gptq", "quantease")
"""Methods beside `nearest` and `gptq`, for the first scheme alone: they take long."""

BUDGETS = (4.27, 4.5)


def ways(subject: Subject, calls: int, minutes: float, kept: Kept) -> Iterator[tuple[str, Store]]:
    """All ways to store a subject, by name; a budget measures with so many calls for so many minutes at most."""
    if isinstance(subject, digits.Digits):
        yield from digits.ways(subject, kept)
        return
    yield from _named(subject, ("nearest",), SCHEMES, kept)
    if isinstance(subject, SmolLM2):
        yield from _of_peers(subject)
    yield from _named(subject, ("weighted nearest", "gptq"), SCHEMES, kept)
    for wanted in BUDGETS:
        yield f"budget: {wanted} bits, gptq", budgeted(subject, CHOSEN, wanted, "gptq", calls, minutes, kept)
    yield from _named(subject, OTHERS, SCHEMES[:1], kept)


def _named(
    subject: Subject, methods: tuple[str, ...], schemes: tuple[str, ...], kept: Kept
) -> Iterator[tuple[str, Store]]:
    for method, scheme in product(methods, schemes):
        yield f"{method}: {scheme}", quantized(subject, scheme, method, kept)


def _of_peers(subject: Subject) -> Iterator[tuple[str, Store]]:
    for kind in ("Q4_0", "IQ4_NL", "IQ4_XS", "Q4_K"):
        yield f"llama.cpp: {kind}", peers.llama_cpp(subject, kind)
        yield f"llama.cpp: {kind}, imatrix", peers.llama_cpp(subject, kind, by_data=True)
    for group, zero in product((32, 64), (False, True)):
        kind = f"int4, groups of {group}{', zero points' if zero else ''}"
        yield f"torchao: {kind}", peers.torchao(subject, group, zero)
        yield f"nncf: {kind}", peers.nncf(subject, group, zero, by_data=False)
        yield f"nncf: {kind}, awq and scale estimation", peers.nncf(subject, group, zero, by_data=True)
