"""PyTorch's tests with effcc in Inductor's place: what a test comes to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks.pytorch_tests.substitute import in_place
from benchmarks.pytorch_tests.tests import compared, load, names, outcome

SOURCE = """
import unittest
import torch
from torch._inductor import metrics, name_of_another_version
from torch._inductor.utils import run_and_get_code

calls = []

class Tests(unittest.TestCase):
    def setUp(self):
        torch._dynamo.reset()

    def test_native(self):
        x = torch.arange(6.0)
        self.assertTrue(torch.equal(torch.compile(lambda x: x + 1)(x), x + 1))

    def test_extern(self):
        x = torch.tensor([2.0, 1.0])
        self.assertTrue(torch.equal(torch.compile(torch.sort, backend="eager")(x)[0], x.flip(0)))

    def test_captured(self):
        self.assertIs(name_of_another_version(self), self)

    def test_internals(self):
        result, (code,) = run_and_get_code(torch.compile(lambda x: x + 1), torch.ones(3))

    def test_wrong(self):
        calls.append(1)
        self.assertEqual(len(calls), 2)

    @unittest.skip("no GPU")
    def test_skipped(self):
        pass
"""


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    folder = tmp_path_factory.mktemp("checkout") / "test" / "inductor"
    folder.mkdir(parents=True)
    path: Path = folder / "test_small_of_pytorch.py"
    path.write_text(SOURCE)
    with in_place():
        yield load(path)


def test_what_each_test_comes_to(module: ModuleType) -> None:
    statuses = {name: outcome(module, name).status for name in names(module)}
    assert statuses == {
        "Tests.test_native": "native", "Tests.test_extern": "extern", "Tests.test_captured": "captured",
        "Tests.test_internals": "failed", "Tests.test_wrong": "failed", "Tests.test_skipped": "skipped",
    }  # fmt: skip


def test_a_test_of_internals_fails_alike_without_a_compiler_and_a_wrong_result_does_not(module: ModuleType) -> None:
    internals = compared(module, "Tests.test_internals")
    assert internals.status == "alike" and "run_and_get_code" in internals.place
    module.calls.clear()
    assert compared(module, "Tests.test_wrong").status == "failed"  # its second run, the control, is right
    assert len(module.calls) == 2
