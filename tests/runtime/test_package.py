"""Packages run without PyTorch, from Python and from C; damaged, foreign and newer ones are refused."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import effcc
from effcc.errors import InputError, PackageError, UnsupportedError
from effcc.fuzz.isolation import forked
from effcc.runtime import write_package
from effcc.runtime.manifest import FORMAT
from effcc.runtime.members import sums_of
from effcc.runtime.toolchain import find_compiler
from effcc.target import detect


def small_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(24, 40), nn.GELU(), nn.LayerNorm(40), nn.Linear(40, 8)).eval()


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package of `small_model`, for 3 rows."""
    return effcc.export(small_model(), (torch.zeros(3, 24),), tmp_path_factory.mktemp("package") / "model.effcc")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a folder, for 2 to 64 rows."""
    rows = torch.export.Dim("rows", min=2, max=64)
    made = tmp_path_factory.mktemp("package") / "dynamic"
    return effcc.export(small_model(), (torch.zeros(3, 24),), made, dynamic_shapes=({0: rows},))


def test_what_killed_loaders_left_is_removed(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not what a loader at work may have just written, nor what is of another name."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name, age in (("effcc-package-left", 7200), ("effcc-package-new", 60), ("another", 7200)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "library.so").write_bytes(b"")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    effcc.load(package)
    assert {p.name for p in tmp_path.iterdir()} == {"effcc-package-new", "another"}


def test_a_loaded_package_computes_what_the_model_does(package: Path) -> None:
    model, loaded, x = small_model(), effcc.load(package), torch.randn(3, 24)
    expected = model(x).detach()
    torch.testing.assert_close(loaded(x), expected)
    torch.testing.assert_close(loaded(input=x), expected)
    result = loaded(x.numpy())
    assert isinstance(result, np.ndarray)
    np.testing.assert_allclose(result, expected.numpy(), rtol=1e-5, atol=1e-6)
    assert loaded.inputs == {"input": "f32[3,24]"}
    assert list(loaded.outputs.values()) == ["f32[3,8]"]


def test_a_package_with_dynamic_sizes_runs_at_each(folder: Path) -> None:
    model, loaded = small_model(), effcc.load(folder)
    for rows in (2, 64, 7):
        x = torch.randn(rows, 24)
        torch.testing.assert_close(loaded(x), model(x).detach())


def test_packages_of_one_model_are_equal_bytes(package: Path, tmp_path: Path) -> None:
    again = effcc.export(small_model(), (torch.zeros(3, 24),), tmp_path / "model.effcc")
    assert again.read_bytes() == package.read_bytes()


def test_a_package_runs_where_there_is_no_torch_and_no_compiler(package: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(3, 24)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    script = f"""
import os, sys
sys.modules["torch"] = None
os.environ["PATH"] = os.environ["CXX"] = ""
import numpy as np, effcc
from effcc.runtime.package import Package
np.save("y.npy", Package({str(package)!r})(np.load("x.npy")))
"""
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, timeout=120)
    expected = small_model()(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, rtol=1e-5, atol=1e-6)


def test_a_library_needs_nothing_but_libc_and_libm(folder: Path) -> None:
    needed = subprocess.run(["readelf", "-d", folder / "library.so"], text=True, capture_output=True, check=True).stdout
    libraries = {line.split("[")[1].split("]")[0] for line in needed.splitlines() if "NEEDED" in line}
    theirs = () if find_compiler().family == "gcc" else ("libgcc_s.", "libstdc++.")  # others link them unasked
    allowed = ("libc.", "libm.", "libmvec.", "ld-linux", "libpthread.", *theirs)
    assert all(name.startswith(allowed) for name in libraries), libraries


PROGRAM = """
#include <stdio.h>
#include "dynamic.h"

int main(int argc, char** argv) {
    (void)argc;
    dynamic model;
    float x[ROWS * 24], y[ROWS * 8];
    if (dynamic_open(&model, argv[1])) { fprintf(stderr, "cannot open: %s\\n", dlerror()); return 1; }
    for (int i = 0; i < ROWS * 24; ++i) x[i] = 0.01f * (float)(i % 97) - 0.4f;
    for (int again = 0; again < 3; ++again)
        if (dynamic_run(&model, x, y, ROWS, 2)) return 2;
    for (int i = 0; i < ROWS * 8; ++i) printf("%.9g\\n", y[i]);
    dynamic_close(&model);
    return 0;
}
"""


@pytest.mark.parametrize(("suffix", "standard"), [("c", "-std=c11"), ("cpp", "-std=c++17")])
def test_a_c_and_a_cpp_program_run_it_through_its_header(
    folder: Path, tmp_path: Path, suffix: str, standard: str
) -> None:
    rows = 5
    (tmp_path / f"main.{suffix}").write_text(PROGRAM)
    compiler = find_compiler().command[0]
    language = ["-x", "c" if suffix == "c" else "c++", standard, "-D_GNU_SOURCE"]
    warnings = ["-Wall", "-Wextra", "-Werror"]
    build = [compiler, *language, *warnings, f"-DROWS={rows}", "-I", folder, f"main.{suffix}", "-o", "main", "-ldl"]
    subprocess.run(build, cwd=tmp_path, check=True)
    printed = subprocess.run([tmp_path / "main", folder], text=True, capture_output=True, check=True).stdout
    x = (0.01 * (torch.arange(rows * 24) % 97) - 0.4).reshape(rows, 24)
    actual = torch.tensor([float(line) for line in printed.split()]).reshape(rows, 8)
    torch.testing.assert_close(actual, small_model()(x).detach())


def test_a_package_for_another_machine_prepares_its_weights_when_it_is_loaded(tmp_path: Path) -> None:
    made = effcc.export(small_model(), (torch.zeros(3, 24),), tmp_path / "scalar.effcc", target="scalar")
    x = torch.randn(3, 24)
    torch.testing.assert_close(effcc.load(made)(x), small_model()(x).detach())


def test_a_model_with_state_keeps_it_between_calls(tmp_path: Path) -> None:
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(4))

        def forward(self, x: Tensor) -> Tensor:
            self.seen.add_(x)
            return self.seen * 2

    loaded = effcc.load(effcc.export(Counter(), (torch.ones(4),), tmp_path / "counter.effcc"))
    for n in (1, 2, 3):
        torch.testing.assert_close(loaded(torch.ones(4)), torch.full((4,), 2.0 * n))


def test_a_cache_that_is_written_in_place_is_state(tmp_path: Path) -> None:
    class Cached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("cache", torch.arange(24.0).reshape(2, 4, 3), persistent=False)

        def forward(self, row: Tensor, at: Tensor) -> Tensor:
            self.cache.index_copy_(1, at, row)
            return self.cache.sum(1)

    row, at, model = torch.randn(2, 1, 3), torch.tensor([0]), Cached()
    loaded = effcc.load(effcc.export(Cached(), (row, at), tmp_path / "cached.effcc"))
    for position in (2, 0, 2):
        row, at = torch.randn(2, 1, 3), torch.tensor([position])
        torch.testing.assert_close(loaded(row, at), model(row, at))


@pytest.mark.parametrize("schemes", [("int8",), ("block(4,1)",), ("int8", "block(4,1)")])
def test_a_model_with_stored_weights_is_exported_and_loaded_again(schemes: tuple[str, ...], tmp_path: Path) -> None:
    model, x = small_model(), torch.randn(3, 24)
    for scheme in schemes:
        if scheme == "int8":
            effcc.quantize(model, scheme)
        else:
            effcc.sparsify(model, scheme, density=0.25)
    loaded = effcc.load(effcc.export(model, (x,), tmp_path / "model.effcc"))
    torch.testing.assert_close(loaded(x), model(x).detach())


def test_a_weight_without_dimensions_is_kept_as_such(tmp_path: Path) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(3.0))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.scale

    loaded = effcc.load(effcc.export(Scaled(), (torch.ones(4),), tmp_path / "scaled.effcc"))
    torch.testing.assert_close(loaded(torch.ones(4)), torch.full((4,), 3.0))


def test_several_results_come_in_order(tmp_path: Path) -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            return x - y, x.t() @ y

    x, y = torch.randn(3, 4), torch.randn(3, 4)
    loaded = effcc.load(effcc.export(Two(), (x, y), tmp_path / "two.effcc"))
    torch.testing.assert_close(loaded(x, y), (x - y, x.t() @ y))
    torch.testing.assert_close(loaded(y=y.t().contiguous().t(), x=x), (x - y, x.t() @ y))


@pytest.mark.parametrize(
    ("arguments", "names", "message"),
    [
        ((torch.zeros(3, 23),), {}, "input 0 (input): expected f32[3,24], got float32[3, 23]"),
        ((torch.zeros(3, 24).double(),), {}, "input 0 (input): expected f32[3,24], got float64[3, 24]"),
        ((torch.zeros(72),), {}, "input 0 (input): expected f32[3,24], got float32[72]"),
        ((), {}, "'input' is missing"),
        ((), {"inputs": torch.zeros(3, 24)}, "'input' is missing"),
        ((torch.zeros(3, 24), torch.zeros(3, 24)), {}, "expected 1 inputs (input), got 2"),
        (([1.0],), {}, "expected a NumPy array or a torch tensor, got list"),
    ],
)
def test_a_wrong_argument_is_named(package: Path, arguments: Any, names: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        effcc.load(package)(*arguments, **names)
    assert message in str(caught.value)


def test_a_size_outside_its_range_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match=r"is in 2\.\.64"):
        effcc.load(folder)(torch.zeros(65, 24))


def change_manifest(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text()) | changes
        (folder / "manifest.json").write_text(json.dumps(manifest))
        sum_again(folder)

    return change


def sum_again(folder: Path) -> None:
    """Make all digests right, as anyone can."""
    names = [line.split("  ")[1] for line in (folder / "SHA256SUMS").read_text().splitlines()]
    (folder / "SHA256SUMS").write_bytes(sums_of({name: (folder / name).read_bytes() for name in names}))


def edit_manifest(folder: Path) -> None:
    text = (folder / "manifest.json").read_text()
    edited = text.replace('"arena_bytes": ', '"arena_bytes":  ')
    assert edited != text
    (folder / "manifest.json").write_text(edited)


def flip_a_byte(name: str) -> Callable[[Path], None]:
    def flip(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(content)

    return flip


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "library": (flip_a_byte("library.so"), "library.so is damaged: expected SHA-256"),
    "weights": (flip_a_byte("weights.safetensors"), "weights.safetensors is damaged"),
    "header": (flip_a_byte("dynamic.h"), "dynamic.h is damaged"),
    "no library": (lambda f: (f / "library.so").unlink(), "library.so is missing"),
    "no manifest": (lambda f: (f / "manifest.json").unlink(), "manifest.json is missing"),
    "manifest cut": (lambda f: (f / "manifest.json").write_text("{"), "manifest.json is damaged"),
    "manifest no JSON": (lambda f: ((f / "manifest.json").write_text("{"), sum_again(f)), "manifest.json is damaged"),
    "no sums": (lambda f: (f / "SHA256SUMS").unlink(), "SHA256SUMS is missing"),
    "newer": (change_manifest(format=FORMAT + 1), f"expected format {FORMAT}, got {FORMAT + 1}"),
    "older": (change_manifest(format=0), "compile the model again"),
    "foreign": (change_manifest(format="zip"), "no package of effcc's"),
    "other platform": (change_manifest(platform="plan9-mips"), "the package is for plan9-mips, this machine is"),
    "other features": (
        change_manifest(target={"name": "x", "isa": "avx512", "features": ["avx2048"]}),
        "needs CPU features that this machine lacks: avx2048",
    ),
    "wrong type": (change_manifest(inputs="x"), "manifest.json: inputs: Input should be a valid list, got 'x'"),
    "another field": (change_manifest(digest="x"), "manifest.json: digest: Extra inputs are not permitted"),
    "wrong name": (change_manifest(inputs=["who"]), "'who' is none of the package's buffers"),
    "no checksums": (lambda f: (f / "SHA256SUMS").write_text(""), "it has no line for library.so"),
    "edited": (edit_manifest, "manifest.json is damaged: expected SHA-256"),
    "edited with digests": (change_manifest(arena_bytes=0), "library.so was not made together with this manifest.json"),
    "bad size": (change_manifest(arena_bytes="10**10**10"), "expected a size symbol, got '10**10**10'"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_or_foreign_package_is_refused_with_what_was_found(damage: str, folder: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(folder, copied)
    harm, message = DAMAGE[damage]
    harm(copied)
    with pytest.raises(PackageError) as caught:
        effcc.load(copied)
    assert message in str(caught.value)
    assert str(copied) in str(caught.value) or "machine" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 cut short"])
def test_a_file_that_is_no_package_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.effcc"
    path.write_bytes(content)
    with pytest.raises(PackageError, match="expected a package that `effcc compile`"):
        effcc.load(path)


def test_a_missing_file_and_a_zip_of_something_else_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="no such file"):
        effcc.load(tmp_path / "nothing.effcc")
    with zipfile.ZipFile(tmp_path / "other.effcc", "w") as archive:
        archive.writestr("../escape.txt", "x")
    with pytest.raises(PackageError, match=r"a file '\.\./escape\.txt' whose name is none of"):
        effcc.load(tmp_path / "other.effcc")


def test_a_cut_archive_is_refused(package: Path, tmp_path: Path) -> None:
    whole = package.read_bytes()
    for length in (100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.effcc").write_bytes(whole[:length])
        with pytest.raises(PackageError):
            effcc.load(tmp_path / "cut.effcc")


def test_calls_to_pytorch_are_refused_ahead_of_time_with_their_list(tmp_path: Path) -> None:
    class Sorting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.sort(x * 2, dim=-1).values.cumsum(0) + torch.topk(x, 4, dim=-1).values

    with pytest.raises(UnsupportedError) as caught:
        effcc.export(Sorting(), (torch.zeros(3, 4),), tmp_path / "model.effcc")
    assert "aten::sort" in str(caught.value)
    assert "aten::topk" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_package_cannot_replace_a_folder_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(PackageError, match="it exists and is no package"):
        effcc.export(small_model(), (torch.zeros(3, 24),), tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"
    with pytest.raises(PackageError, match="there is no folder"):
        effcc.export(small_model(), (torch.zeros(3, 24),), tmp_path / "nowhere" / "model.effcc")


@pytest.mark.parametrize("suffix", ["", ".effcc"])
def test_a_writer_that_is_killed_leaves_the_package_that_was_there(suffix: str, tmp_path: Path) -> None:
    """Wherever the writer is when it is killed, what stands at the path is a whole package."""
    path = tmp_path / f"model{suffix}"
    x, torch_model = torch.randn(3, 24), small_model()
    effcc.export(torch_model, (torch.zeros(3, 24),), path)
    files = {"fsync": os.fsync, "replace": os.replace, "exchange": write_package._exchange}
    for name, real in files.items():
        for calls in (0, 1):
            killed = forked(lambda name=name, real=real, calls=calls: _killed_writing(path, name, real, calls))
            assert isinstance(killed, str) or killed is None
            torch.testing.assert_close(effcc.load(path)(x), torch_model(x).detach())


def _killed_writing(path: Path, name: str, real: Any, calls: int) -> None:
    """Export again, and die at the call of a function after so many."""
    left = [calls]

    def die(*args: Any) -> Any:
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        return real(*args)

    if name == "exchange":
        write_package._exchange = die
    else:
        setattr(os, name, die)
    with zipfile.ZipFile(path) if path.suffix else contextlib.nullcontext() as archive:
        names = archive.namelist() if archive else [f.name for f in path.iterdir()]
        files = {n: archive.read(n) if archive else (path / n).read_bytes() for n in names}
    if path.suffix:
        write_package._write_archive(path, files)
    else:
        write_package._write_folder(path, files)


def test_features_are_those_of_the_target(package: Path) -> None:
    with zipfile.ZipFile(package) as archive:
        manifest, names = json.loads(archive.read("manifest.json")), archive.namelist()
    assert manifest["target"]["features"] == list(detect().features)
    assert sorted(names) == ["SHA256SUMS", "library.so", "manifest.json", "model.h", "weights.safetensors"]
