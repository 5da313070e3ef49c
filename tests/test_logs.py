"""What effcc tells through torch's logging, and debug information that leads to the model's lines."""

from __future__ import annotations

import logging
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from effcc.frontend.location import model_line
from effcc.runtime.toolchain import debug_info, object_flags
from effcc.target import Target


def model(x: torch.Tensor) -> torch.Tensor:
    return torch.softmax(x * 2, -1)


def test_torch_logs_show_what_was_compiled_and_each_step(
    monkeypatch: pytest.MonkeyPatch, quick_compiler: str, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CXX", quick_compiler)
    torch._logging.set_logs(modules={"effcc": logging.DEBUG})
    try:
        torch.compile(model, backend="effcc")(torch.randn(3, 5))
    finally:
        torch._logging.set_logs()
    said = capfd.readouterr().err
    assert "inference graph of" in said and "from test_logs.py" in said
    assert "step simplify:" in said and "step emit:" in said
    assert "@main for " in said and "1 steps, 1 kernels" in said


def test_nothing_is_logged_unless_asked_for(
    monkeypatch: pytest.MonkeyPatch, quick_compiler: str, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CXX", quick_compiler)
    torch._dynamo.reset_code(model.__code__)
    torch.compile(model, backend="effcc")(torch.randn(3, 5))
    assert "effcc" not in capfd.readouterr().err


@pytest.mark.skipif(shutil.which("objdump") is None, reason="objdump (binutils) is not here")
def test_debug_information_leads_to_the_models_line(
    monkeypatch: pytest.MonkeyPatch, quick_compiler: str, tmp_path: Path
) -> None:
    monkeypatch.setenv("CXX", quick_compiler)
    sizes = {}
    for wanted in ("0", "1"):
        monkeypatch.setenv("EFFCC_DEBUG_INFO", wanted)
        monkeypatch.setenv("EFFCC_CACHE_DIR", str(tmp_path / wanted))
        torch._dynamo.reset_code(model.__code__)
        torch.compile(model, backend="effcc")(torch.randn(3, 5))
        (library,) = (tmp_path / wanted).glob("entries/*/library.so")
        sizes[wanted] = library.stat().st_size
        decoded = subprocess.run(["objdump", "--dwarf=decodedline", library], text=True, capture_output=True).stdout
        places = {tuple(line.split()[:2]) for line in decoded.splitlines() if line.startswith("test_logs.py")}
        line = str(model.__code__.co_firstlineno + 1)
        assert (("test_logs.py", line) in places) == (wanted == "1")
    assert sizes["0"] < sizes["1"]


def test_the_flag_is_for_those_who_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EFFCC_DEBUG_INFO", raising=False)
    assert not debug_info()
    assert "-g" not in object_flags(Target.parse("avx2"))
    monkeypatch.setenv("EFFCC_DEBUG_INFO", "1")
    assert "-g" in object_flags(Target.parse("avx2"))


def test_a_line_is_found_in_the_modules_that_are_loaded() -> None:
    line = model.__code__.co_firstlineno + 1
    assert model_line(f"test_logs.py:{line}: return torch.softmax(x * 2, -1); other.py:3: y") == (__file__, line)
    assert model_line("nobody.py:7: y = x; z.py:3: w") == ("nobody.py", 7)
    assert model_line("") is None
