"""PyTorch's test files: imported with the PyTorch that is installed, however old they are, and run one by one."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import re
import sys
import time
import traceback
import unittest
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from benchmarks.pytorch_tests.substitute import using

# What a test can come to. Right: `native`, `extern` where PyTorch runs operators for effcc, `captured` where nothing
# was handed to a backend. `alike`: it fails at the same line with a backend that only runs what was captured: it asks
# for Inductor's internals, or for another PyTorch. `skipped`: by itself, on a CPU or with this PyTorch.
STATUSES = ("native", "extern", "captured", "failed", "crash", "alike", "skipped")
RIGHT = ("native", "extern", "captured")
FAILED = ("failed", "crash")

CONTROL = "aot_eager"
"""Runs what was captured, without compiling it."""

_GUARD_CHECK = "guard_manager_clone_hook_fn"
"""Beside each test, classes look at Dynamo's guards in the form that they had in their version."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a test came to: one of `STATUSES`; the error, where in the file; the operators that PyTorch ran."""

    test: str
    status: str
    detail: str = ""
    place: str = ""
    externs: tuple[str, ...] = ()
    seconds: float = 0.0


def load(path: Path) -> ModuleType:
    """A test file as a module. What it imports by names that this PyTorch no longer has is a decorator that does
    nothing."""
    root = next(p for p in path.resolve().parents if p.name == "test")
    for folder in (str(root), str(path.parent)):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    while True:
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None
        module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except ImportError as error:
            _give_missing(error)
            continue
        for kind in vars(module).values():
            if isinstance(kind, type) and hasattr(kind, _GUARD_CHECK):
                setattr(kind, _GUARD_CHECK, lambda *_: None)
        vars(module)["HAS_GPU"] = True  # from here on only asked by tests for a CPU that skip themselves without Triton
        return module


def _give_missing(error: ImportError) -> None:
    """Give the module that an import asks for what it lacks; raises the error where that is not what it is about."""
    found = re.match(r"cannot import name '(\w+)' from '([\w.]+)'", str(error))
    if found is None:
        raise error
    setattr(importlib.import_module(found[2]), found[1], _unchanged)


def _unchanged(thing: Any) -> Any:
    return thing


def names(module: ModuleType) -> list[str]:
    """`Class.test` for every test of a module."""
    found = {f"{type(case).__name__}.{case._testMethodName}" for case in _cases(module)}
    return sorted(found)


def _cases(module: ModuleType) -> Iterator[Any]:
    def leaves(suite: Any) -> Iterator[Any]:
        for one in suite:
            yield from leaves(one) if isinstance(one, unittest.TestSuite) else [one]

    yield from leaves(unittest.defaultTestLoader.loadTestsFromModule(module))


def outcome(module: ModuleType, test: str, backend: str = "effcc") -> Outcome:
    """Run a test with a backend in Inductor's place."""
    kind, method = test.split(".")
    suite = unittest.TestSuite([getattr(module, kind)(method)])  # a suite calls setUpClass
    result = _Result(module)
    begun = time.perf_counter()
    with using(backend) as seen:
        suite.run(result)
    seconds = time.perf_counter() - begun
    externs = tuple(sorted(seen.externs))
    if result.wrong is not None:
        detail, place = result.wrong
        return Outcome(test, "failed", detail, place, externs, seconds)
    if result.skipped:
        return Outcome(test, "skipped", result.skipped[0][1], "", externs, seconds)
    status = "extern" if externs else "native" if seen.graphs else "captured"
    return Outcome(test, status, "", "", externs, seconds)


def compared(module: ModuleType, test: str) -> Outcome:
    """Run a test with effcc in Inductor's place; what fails, once more with a backend that compiles nothing."""
    found = outcome(module, test)
    return judged(found, outcome(module, test, CONTROL)) if found.status in FAILED else found


def judged(found: Outcome, control: Outcome) -> Outcome:
    """What a failed test came to, from what it did without a compiler."""
    alike = (control.status, control.place) == (found.status, found.place)
    return dataclasses.replace(found, status="alike") if alike else found


Error = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]


class _Result(unittest.TestResult):
    """wrong: the first error, and its place: the last line of a test file on the way to it."""

    def __init__(self, module: ModuleType) -> None:
        super().__init__()
        self.folder = str(Path(str(module.__file__)).parent)
        self.wrong: tuple[str, str] | None = None

    def addError(self, test: unittest.TestCase, err: Error) -> None:
        self._note(err)

    def addFailure(self, test: unittest.TestCase, err: Error) -> None:
        self._note(err)

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: Error | None) -> None:
        if err is not None:
            self._note(err)

    def _note(self, err: Error) -> None:
        kind, error, trace = err
        assert kind is not None
        frames = traceback.extract_tb(trace)
        own = [f for f in frames if f.filename.startswith(self.folder)] or frames
        last = own[-1]
        text = " ".join(str(error).split())
        place = f"{Path(last.filename).name}:{last.lineno}: {last.line}"
        self.wrong = self.wrong or (f"{kind.__name__}: {text}"[:2000], place)
