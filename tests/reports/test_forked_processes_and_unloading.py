"""A forked child runs models as its parent does, and what is not used any more is unloaded."""

from __future__ import annotations

import gc
import multiprocessing
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

import effcc
from effcc.driver import compile_graph
from effcc.ir.dtypes import f32
from effcc.ir.graph import Graph, GraphBuilder
from effcc.ir.types import TensorType
from effcc.runtime.fork import Lock

PARENT = """
import os, signal, sys
import torch
torch.set_num_threads(2)
torch.tanh(torch.ones(2000, 2000)) @ torch.ones(2000, 500)  # PyTorch's pool has threads from here on
x, w = torch.ones(512, 256), torch.ones(256, 256)
if {before}:
    import effcc
child = os.fork()
if child == 0:
    signal.alarm(100)  # a child that hangs is killed
    from effcc.driver import compile_graph
    from effcc.ir.parser import parse_graph
    text = "graph @g(%x: f32[512,256], weight %w: f32[256,256]) {{ %y = linear %x, %w : f32[512,256] return %y }}"
    (y,) = compile_graph(parse_graph(text))(x, w)
    torch.set_num_threads(1)  # PyTorch's own loops would hang
    os._exit(0 if bool((y == 256).all()) else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.parametrize("before", [True, False])
def test_a_library_first_loaded_in_a_forked_child(before: bool) -> None:
    """effcc is imported before the fork, or after."""
    run = subprocess.run([sys.executable, "-c", PARENT.format(before=before)], timeout=200)
    assert run.returncode == 0


def product() -> Graph:
    builder = GraphBuilder("product")
    x = builder.param("x", TensorType(f32, (64, 64)))
    return builder.build((builder.emit("matmul", x, builder.emit("exp", x)),))


def _call(compiled: object, answers: multiprocessing.SimpleQueue[bool]) -> None:
    x = torch.eye(64)
    (y,) = compiled(x)  # type: ignore[operator]
    answers.put(bool(torch.allclose(y, torch.ones(64, 64) + torch.eye(64) * (np.e - 1))))


def test_a_model_that_the_parent_ran() -> None:
    compiled = compile_graph(product())
    context = multiprocessing.get_context("fork")
    answers: multiprocessing.SimpleQueue[bool] = context.SimpleQueue()
    _call(compiled, answers)
    child = context.Process(target=_call, args=(compiled, answers))
    child.start()
    child.join(60)
    assert child.exitcode == 0 and answers.get() and answers.get()


def test_a_child_finds_locks_open() -> None:
    lock, forked = Lock(), threading.Event()
    held = threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            forked.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(60)
    child = os.fork()
    if child == 0:
        os._exit(0 if lock._inner.acquire(timeout=20) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not lock._inner.acquire(blocking=False)  # the parent's own is still held
    forked.set()
    holder.join()


def mapped() -> int:
    """Libraries of packages that are mapped into this process."""
    return sum("effcc-package" in line for line in Path("/proc/self/maps").read_text().splitlines())


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="shows what is mapped on Linux only")
def test_packages_that_nobody_uses_are_unloaded(tmp_path: Path) -> None:
    x = torch.zeros(5, 3)
    path = effcc.export(torch.nn.Linear(3, 2), (x,), tmp_path / "linear.effcc")
    gc.collect()
    before, threads = mapped(), len(os.listdir("/proc/self/task"))
    held = effcc.load(path, threads=2)
    for _ in range(20):
        effcc.load(path, threads=2)(x)
    gc.collect()
    assert mapped() <= before + 8  # the segments of the one that is held
    held(x)
    del held
    gc.collect()
    assert mapped() == before
    assert len(os.listdir("/proc/self/task")) <= threads


def test_a_function_keeps_its_library() -> None:
    from effcc.runtime.cache import CompileCache
    from effcc.target import detect

    source = 'extern "C" int number_41() { return 41; }\n'
    function = CompileCache.default().load(source, detect()).function("number_41")
    gc.collect()
    assert function() == 41
