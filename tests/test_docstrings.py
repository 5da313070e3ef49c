"""Every example in a docstring runs, and gives what stands below it."""

from __future__ import annotations

import doctest
import importlib
import linecache
import os
from pathlib import Path

import pytest
import torch

import effcc

ROOT = Path(effcc.__file__).parent
PUBLIC = [name for name in effcc.__all__ if name not in ("invalidate", "stats")]


def modules_with_examples() -> list[str]:
    walked = os.walk(ROOT, followlinks=True)  # passes, codegen, runtime and fuzz are links
    found = (Path(folder, name) for folder, _, names in walked for name in names if name.endswith(".py"))
    files = sorted(f for f in found if ">>> " in f.read_text(encoding="utf-8"))
    parts = [("effcc", *f.relative_to(ROOT).with_suffix("").parts) for f in files]
    return [".".join(p[:-1] if p[-1] == "__init__" else p) for p in parts]


@pytest.mark.parametrize("name", modules_with_examples())
def test_the_examples_of_a_module_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # some write files
    monkeypatch.setattr(linecache, "checkcache", lambda *_: None)  # for a debugger: whether a thousand files changed
    torch._dynamo.reset()  # a module compiled before makes the sizes of the next one unknown
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0 and result.failed == 0


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_function_has_an_example(name: str) -> None:
    assert ">>> " in (getattr(effcc, name).__doc__ or "")
