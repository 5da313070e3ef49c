"""`effcc run`: a compiled package on tensors from a file."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import safetensors.numpy
import typer

from effcc.commands.output import print_json, print_table
from effcc.errors import InputError, PackageError
from effcc.runtime.files import aside, open_regular
from effcc.runtime.package import Package
from effcc.runtime.stored_tensors import read_tensors


def run(
    package: Annotated[Path, typer.Argument(help="What `effcc compile` wrote.")],
    inputs: Annotated[Path, typer.Argument(help="A safetensors file that holds the inputs by name.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the results to this safetensors file.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="How many threads run it; all physical cores if left out.")
    ] = None,
    repeat: Annotated[int, typer.Option(min=1, help="Run so many times, and report the median time.")] = 1,
    verify: Annotated[
        Path | None,
        typer.Option(
            help="Refuse a package that the owner of this public key, a PEM file, has not signed: "
            "openssl pkey -in key.pem -pubout -out key.pub.pem"
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Run a compiled package, and print the shapes and ranges of its results and the time it took."""
    if output is not None and output.resolve() in (package.resolve(), inputs.resolve()):
        raise InputError(f"--output {output} would overwrite what is read; name another file")
    model = Package(package, threads=threads, verify=verify)
    given = _read(inputs)
    numbers = {n.name: _number(n.name, given.pop(n.name)) for n in model.manifest.numbers if n.name in given}
    seconds = []
    for _ in range(repeat):
        start = time.perf_counter()
        results = model.run(given, numbers)
        seconds.append(time.perf_counter() - start)
    if output is not None:
        _write(output, results)
    found = {name: _describe(array) for name, array in results.items()}
    if json:
        print_json({"outputs": found, "median_seconds": statistics.median(seconds), "repeat": repeat})
        return
    print_table(
        ("output", "dtype", "shape", "least", "most"),
        [(n, d["dtype"], str(d["shape"]), str(d["least"]), str(d["most"])) for n, d in found.items()],
    )
    print(f"{statistics.median(seconds) * 1e3:.3f} ms" + (f", the median of {repeat} runs" if repeat > 1 else ""))


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        with open_regular(path) as file:
            return read_tensors(file.read(), path.name)
    except (PackageError, OSError, MemoryError) as error:
        raise InputError(f"{path}: expected a safetensors file with the inputs; it cannot be read: {error}") from error


def _number(name: str, array: np.ndarray) -> int:
    """A number among the arguments, which a file holds as a tensor of one integer."""
    if array.size != 1 or array.dtype.kind not in "iu":
        raise InputError(f"argument {name}: expected a tensor of one integer, got {array.dtype}{list(array.shape)}")
    return int(array.reshape(()))


def _write(path: Path, results: dict[str, np.ndarray]) -> None:
    """Aside first, then renamed: the file is whole or absent."""
    content = safetensors.numpy.save({n: np.ascontiguousarray(a) for n, a in results.items()})
    try:
        with aside(path, mode=0o666) as staged:
            staged.write_bytes(content)
            os.replace(staged, path)
    except OSError as error:
        raise InputError(f"cannot write the results to {path}: {error}") from error


def _describe(array: np.ndarray) -> dict[str, Any]:
    """Dtype, shape, and the least and the most value that is no NaN."""
    values = array.astype(np.float64)
    values = values[~np.isnan(values)]
    return {
        "dtype": str(array.dtype),
        "shape": list(array.shape),
        "least": float(values.min()) if values.size else None,
        "most": float(values.max()) if values.size else None,
    }
