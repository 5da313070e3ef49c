"""How many units in the last place the float functions of `runtime/include/effcc` are off, over all 2^32 floats.

    python -m benchmarks.ulp                     # everything, half a minute of a core each; rewrites benchmarks/ulp.md
    python -m benchmarks.ulp exp erf             # these functions' rows of it
    python -m benchmarks.ulp exp erf --stride 97 # every 97th float only; prints the rows and leaves the file alone

For each instruction set this processor runs, every function is compiled as a kernel would have it and compared with the
C library's double (see `ulp.cpp`). An error of 0.5 is a correctly rounded result. The table also says how often a NaN,
an infinity or the sign of a zero is not as the C library has it, and how fast each function is beside glibc's own
vector library, libmvec (good to 4 units).
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
HEADERS = HERE.parent / "runtime" / "include"
PAGE = HERE / "ulp.md"

FUNCTIONS = (
    *("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "tanh", "sigmoid", "erf", "erfc"),
    *("sin", "cos", "tan", "asin", "acos", "atan", "sqrt", "rsqrt"),
)
# Beyond 2^17 these call the C library lane by lane: slow, and nothing of ours to measure. There a sample is enough.
CALLS_LIBM_BEYOND_2_17 = ("sin", "cos", "tan")
FAR_STRIDE = 251
# The widest instruction set sees every float, the others, which compute the same way but for FMA, every 61st.
OTHERS_STRIDE = 61

ISAS = {
    "avx512": ("avx512f avx512dq avx512bw avx512vl fma f16c", "-march=x86-64-v4 -mprefer-vector-width=512"),
    "avx2": ("avx2 fma f16c", "-march=x86-64-v3"),
    "baseline": ("", ""),
}
FLAGS = ("-std=c++20", "-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off", "-fwrapv")


@dataclass(frozen=True)
class Measured:
    """The worst of one function on one instruction set."""

    function: str
    isa: str
    ulp: float
    at: float
    second: float
    got: float
    truth: float
    wrong: int
    wrong_at: float


@functools.cache
def usable_isas() -> tuple[str, ...]:
    """The instruction sets that this processor can run, widest first; only the baseline where that cannot be read."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ("baseline",)
    flags = set(next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), ()))
    return tuple(name for name, (needs, _) in ISAS.items() if flags.issuperset(needs.split()))


def build(folder: Path, compiler: str = "g++") -> Path:
    """Compiles the measuring program for every usable instruction set into `folder` and returns its path."""
    include = [f"-I{HEADERS}", f"-I{HERE}"]
    objects = []
    for isa in usable_isas():
        target = folder / f"{isa}.o"
        source = str(HERE / "ulp_functions.cpp")
        flags = [*FLAGS, *ISAS[isa][1].split(), f"-DEFFCC_ISA={isa}"]
        subprocess.run([compiler, *flags, *include, "-c", source, "-o", str(target)], check=True)
        objects.append(str(target))
    program = folder / "ulp"
    widest = ISAS[usable_isas()[0]][1].split()
    listing = "-DULP_ISAS(F)=" + " ".join(f"F({isa})" for isa in usable_isas())
    main = [*FLAGS, *widest, *include, listing, str(HERE / "ulp.cpp")]
    subprocess.run([compiler, *main, *objects, "-pthread", "-lm", "-o", str(program)], check=True)
    return program


def sweep(program: Path, function: str, isa: str, stride: int, threads: int, domain: str = "all") -> Measured:
    """Runs `function` over every `stride`-th float of a domain: `all`, or `near` for |x| <= 2^17 and `far` beyond."""
    command = [str(program), function, isa, str(stride), str(threads), domain]
    return _measured(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def _measured(row: dict[str, str | float | int]) -> Measured:
    hexadecimal = {key: float.fromhex(str(row[key])) for key in ("at", "second", "got", "wrong_at")}
    return Measured(
        function=str(row["function"]),
        isa=str(row["isa"]),
        ulp=float(row["ulp"]),
        truth=float(row["truth"]),
        wrong=int(row["wrong"]),
        **hexadecimal,
    )


def measure(program: Path, function: str, isa: str, stride: int, threads: int) -> Measured:
    """The worst of a function on one instruction set, over as many floats as `stride` says."""
    if function == "pow":
        return sweep(program, "pow", isa, max((1 << 26) // stride, 4096), threads)
    if function not in CALLS_LIBM_BEYOND_2_17:
        return sweep(program, function, isa, stride, threads)
    near = sweep(program, function, isa, stride, threads, "near")
    far = sweep(program, function, isa, stride * FAR_STRIDE, threads, "far")
    return max(near, far, key=lambda m: (m.wrong, m.ulp))


def speed(program: Path, function: str) -> dict[str, float]:
    """Core cycles an element on each instruction set and for libmvec, by name."""
    command = [str(program), "speed", function]
    row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    rate = row.pop("cycles_per_ns")
    row.pop("function")
    return {name: nanoseconds * rate for name, nanoseconds in row.items()}


def heading() -> str:
    """The table's first line; it names the instruction sets, so that rows of another machine are not mixed in."""
    isas = usable_isas()
    errors = [f"worst error, {isa}" for isa in isas]
    cycles = [f"cycles, {name}" for name in (*isas, "libmvec")]
    return _row(["function", *errors, "worst at", "computed", "true", "special values wrong", *cycles])


def row(measured: Sequence[Measured], cycles: dict[str, float]) -> str:
    """One function's line of the table."""
    worst = max(measured, key=lambda m: m.ulp)
    at = f"{worst.at:.9g}" if worst.function != "pow" else f"{worst.at:.9g}, {worst.second:.9g}"
    wrong = [f"{m.wrong} (first {m.wrong_at!r}, {m.isa})" for m in measured if m.wrong]
    cells = [worst.function, *(f"{m.ulp:.2f}" for m in measured), at, f"{worst.got:.9g}", f"{worst.truth:.12g}"]
    cells += ["; ".join(wrong) or "none"]
    cells += [f"{cycles[name]:.2f}" if name in cycles else "" for name in (*usable_isas(), "libmvec")]
    return _row(cells)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def known_rows(text: str) -> dict[str, str]:
    """The rows of a page that this machine could have written, by function; none if its instruction sets differ."""
    lines = text.splitlines()
    if heading() not in lines:
        return {}
    rows = lines[lines.index(heading()) + 2 :]
    return {line.split("|")[1].strip(): line for line in rows if line.startswith("|")}


def page(rows: dict[str, str]) -> str:
    """`benchmarks/ulp.md`: the table with what one needs to read it."""
    compiler = subprocess.run(["g++", "--version"], check=True, capture_output=True, text=True).stdout.splitlines()[0]
    libc = " ".join(platform.libc_ver())
    body = [heading(), "|---" * (heading().count("|") - 1) + "|"]
    body += [rows[name] for name in (*FUNCTIONS, "pow") if name in rows]
    return (
        f"""# Errors of the float functions

Written by `python -m benchmarks.ulp` ({compiler}, {libc}).
{usable_isas()[0]}: over all 2^32 floats; other instruction sets, where there are any: every {OTHERS_STRIDE}st float.

- *Worst error* is in units in the last place: |computed - true| over the spacing of floats at the true value, denormals
  included; 0.5 is the best there is. An overflow to infinity counts as 2^128. True means the C library in double; the
  input found worst is looked at again in long double.
- *Special values wrong* counts inputs whose NaN, infinity or sign of zero is not as the C library's.
- sin, cos and tan call the C library beyond |x| = 2^17 (2^13 without FMA); there every {FAR_STRIDE}st float is taken.
- pow takes two arguments: 2^26 random pairs, half of any bits, half with finite results.
- sigmoid's truth is 1 / (1 + e^-x) in double, also where a float e^-x would overflow.
- *Cycles* are core cycles an element, least of 2000 runs over 2048 floats in the first cache.

"""
        + "\n".join(body)
        + "\n"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    summary = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ulp", description=summary)
    choices = f"of {', '.join(FUNCTIONS)}, pow; default: all"
    parser.add_argument("functions", nargs="*", metavar="FUNCTION", help=choices)
    parser.add_argument("--stride", type=int, default=1, help="take every STRIDE-th float (default: every one)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(arguments)
    names = options.functions or [*FUNCTIONS, "pow"]
    if unknown := sorted(set(names) - {*FUNCTIONS, "pow"}):
        parser.error(f"no function {', '.join(unknown)}; there are {', '.join(FUNCTIONS)}, pow")
    rows = known_rows(PAGE.read_text()) if PAGE.exists() else {}
    strides = [options.stride * (OTHERS_STRIDE if k else 1) for k in range(len(usable_isas()))]
    with tempfile.TemporaryDirectory() as folder:
        program = build(Path(folder))
        for name in names:
            isas = zip(usable_isas(), strides, strict=True)
            measured = [measure(program, name, isa, stride, options.threads) for isa, stride in isas]
            rows[name] = row(measured, speed(program, name) if name != "pow" else {})
            print(rows[name], flush=True)
            if options.stride == 1:
                PAGE.write_text(page(rows))


if __name__ == "__main__":
    main()
