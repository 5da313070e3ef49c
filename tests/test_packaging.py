"""The wheel holds effcc and nothing else, and what it holds is enough to compile a model far from any checkout."""

from __future__ import annotations

import os
import site
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that this checkout builds."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(CHECKOUT)]
    subprocess.run(command, check=True, timeout=300, stdout=subprocess.DEVNULL)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def fresh_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh virtual environment that holds the wheel, and sees this one's other packages.

    The path file makes their folders visible, but not the path files in them, so not an editable effcc.
    """
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, timeout=300, stdout=subprocess.DEVNULL)
    (packages,) = (folder / "lib").glob("python*/site-packages")
    (packages / "other_packages.pth").write_text("\n".join(site.getsitepackages()))
    return python


def packaged_files() -> set[str]:
    """What lies under effcc/ in the checkout, through the links, as the wheel should name it."""
    found = set()
    for folder, folders, names in os.walk(CHECKOUT / "effcc", followlinks=True):
        folders[:] = [name for name in folders if name != "__pycache__"]
        found |= {str(Path(folder, name).relative_to(CHECKOUT)) for name in names}
    return found


def test_the_wheel_holds_effcc_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if not name.startswith("effcc-0.1.0.dist-info/")}
    assert names == packaged_files()


@pytest.mark.parametrize("suffix", [".py", ".h", ".cpp", ".lark", ".rules", ".html", ".css", ".js", "py.typed"])
def test_the_wheel_holds_files_of_every_kind(wheel: Path, suffix: str) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert any(name.startswith("effcc/") and name.endswith(suffix) for name in names)


def test_the_wheel_names_the_license_and_both_entry_points(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        entry_points = archive.read("effcc-0.1.0.dist-info/entry_points.txt").decode()
        metadata = archive.read("effcc-0.1.0.dist-info/METADATA").decode()
    assert "effcc = effcc.cli:main" in entry_points
    assert "[torch_dynamo_backends]\neffcc = effcc.backend:effcc_backend" in entry_points
    assert "License-Expression: Apache-2.0" in metadata
    assert "Requires-Python: >=3.11" in metadata


def run_outside(python: Path, script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a script in the fresh environment, away from the checkout."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment["EFFCC_CACHE_DIR"] = str(folder / "cache")
    return subprocess.run(
        [str(python), "-c", script], cwd=folder, env=environment, text=True, capture_output=True, timeout=300
    )


COMPILE = """
import sys
import torch

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(64, 48), torch.nn.GELU(), torch.nn.LayerNorm(48), torch.nn.Linear(48, 8))
x = torch.randn(5, 64)
with torch.no_grad():
    expected = model(x)
    actual = torch.compile(model.eval(), backend="effcc")(x)
torch.testing.assert_close(actual, expected)
print(sys.modules["effcc"].__file__)
"""


def test_an_installed_wheel_compiles_a_model(fresh_python: Path, tmp_path: Path) -> None:
    result = run_outside(fresh_python, COMPILE, tmp_path)
    assert result.returncode == 0, result.stderr
    assert Path(result.stdout.strip()).is_relative_to(fresh_python.parent.parent)
    assert list((tmp_path / "cache" / "entries").iterdir()), "no library was compiled"


def test_an_installed_script_runs(fresh_python: Path, tmp_path: Path) -> None:
    script = fresh_python.parent / "effcc"
    result = subprocess.run([str(script), "version"], cwd=tmp_path, text=True, capture_output=True, timeout=60)
    assert result.stdout.startswith("effcc 0.1.0"), result.stderr
