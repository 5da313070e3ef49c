"""How quick each form of `dot` is (`effcc/dot.h`), beside a register tile of f32: products and additions a second.

    python -m benchmarks.dot

One thread, operands in the L1 cache; the best of many short runs, so that other work on the machine hardly counts.
"""

from __future__ import annotations

import ctypes
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from effcc.runtime.toolchain import compile_flags, compile_library
from effcc.target import Target, generic

FORMS = {"f32_f32": 1, "i16_i16": 2, "u8_i8": 4, "u8_i8_small": 4, "i8_i8": 4, "bf16_bf16": 2}
DEPTH, TIMES = 128, 64
RUNS = 400


def targets() -> dict[str, Target]:
    """AVX2 and AVX-512 with and without what is made for dots; those that run here."""
    avx2, avx512 = generic("avx2"), generic("avx512")
    found = {
        "AVX2": avx2,
        "AVX2, VNNI": replace(avx2, features=(*avx2.features, "avx_vnni")),
        "AVX-512": avx512,
        "AVX-512, VNNI, BF16": replace(avx512, features=(*avx512.features, "avx512_vnni", "avx512_bf16")),
    }
    return {name: target for name, target in found.items() if target.runs_here()}


def measure(target: Target, folder: Path) -> dict[str, float]:
    """Products a second of each form, in thousands of millions."""
    source = (Path(__file__).parent / "dot.cpp").read_text(encoding="utf-8")
    path = compile_library(source, folder / f"{abs(hash(target.features))}.so", compile_flags(target))
    library = ctypes.CDLL(str(path))
    lanes = target.vector_bytes // 4
    rows, vectors = (8 if lanes == 16 else 4), 2
    operands = [np.zeros(1 << 16, np.uint8).ctypes.data_as(ctypes.c_void_p) for _ in range(3)]
    best = dict.fromkeys(FORMS, float("inf"))
    for _ in range(RUNS):
        for name in FORMS:
            function = getattr(library, name)
            begin = time.perf_counter()
            function(*operands, ctypes.c_long(DEPTH), ctypes.c_long(TIMES))
            best[name] = min(best[name], time.perf_counter() - begin)
    return {n: rows * vectors * lanes * k * DEPTH * TIMES / best[n] / 1e9 for n, k in FORMS.items()}


def main() -> None:
    print("| machine | " + " | ".join(FORMS) + " |")
    print("|---" * (len(FORMS) + 1) + "|")
    with tempfile.TemporaryDirectory() as folder:
        for name, target in targets().items():
            found = measure(target, Path(folder))
            cells = [f"{found[f]:.0f} ({found[f] / found['f32_f32']:.1f}x)" for f in FORMS]
            print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
