"""Which branches of `effcc.passes` and `effcc.codegen` have been taken: their modules are marked as they are imported.

A branch is a block that may or may not run: a function's body, what follows an `if` or `else` (of an `if` alone, that
it was passed by), a loop's body, that a loop came to its end, a handler of exceptions, a case of a match. Each block
begins with one more statement, which sets a byte; a tracer, which sees every line, takes several times as long as the
compiler itself. Other processes (`effcc.fuzz.nursery`) mark in memory that is shared by a file.

This module imports nothing of effcc: it must `begin` before the modules that it marks are imported.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import mmap
import os
import sys
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

ROOMS = ("effcc.passes", "effcc.codegen")
_PACKAGE = Path(__file__).absolute().parent.parent
_ENVIRONMENT = "EFFCC_FUZZ_BRANCHES"
_NAME = "_effcc_taken"


class _Taken:
    """The bytes of this process, and those that its children share."""

    def __init__(self, own: bytearray | mmap.mmap, shared: mmap.mmap | None = None) -> None:
        self.own, self.shared = own, shared
        self.told: set[int] = set()


_state: list[_Taken] = []


def begin() -> None:
    """Mark what is imported from now on, in this process and those that it starts. Raises RuntimeError where a module
    of these rooms is imported already, which would never be seen."""
    if _state:
        return
    imported = [name for name in sys.modules if name.startswith(tuple(f"{room}." for room in ROOMS))]
    if imported:
        raise RuntimeError(f"expected to begin before {imported[0]} is imported")
    size = _layout()[1]
    descriptor, path = tempfile.mkstemp(prefix="effcc-fuzz-branches-")
    os.ftruncate(descriptor, size)
    _state.append(_Taken(bytearray(size), mmap.mmap(descriptor, size)))
    os.close(descriptor)
    os.environ[_ENVIRONMENT] = path
    sys.meta_path.insert(0, _Finder())


def begin_if_asked() -> None:
    """In a process that was started: mark what is imported for the one that began."""
    path = os.environ.get(_ENVIRONMENT)
    if path is None or _state:
        return
    with contextlib.suppress(OSError), open(path, "r+b") as file:
        _state.append(_Taken(mmap.mmap(file.fileno(), 0)))
        sys.meta_path.insert(0, _Finder())


def end() -> None:
    """Forget the file that other processes share; what is marked stays so."""
    path = os.environ.pop(_ENVIRONMENT, None)
    if path is not None:
        Path(path).unlink(missing_ok=True)


def marking() -> bool:
    """Whether branches are marked."""
    return bool(_state)


def taken() -> set[int]:
    """All that were taken, here and in other processes, as numbers; empty where none are marked."""
    if not _state:
        return set()
    state = _state[0]
    found = _ones(bytes(state.own))
    return found | _ones(state.shared[:]) if state.shared is not None else found


def taken_here() -> int:
    """How many were taken by this process."""
    return bytes(_state[0].own).count(1) if _state else 0


def recall(numbers: set[int], layout_then: int) -> None:
    """Take those for taken that a campaign had taken before, if they are of this layout."""
    if _state and layout_then == layout():
        _state[0].told |= numbers
        for number in numbers:
            _state[0].own[number] = 1


def fresh() -> list[int]:
    """Those that were taken since the last call."""
    if not _state:
        return []
    found = taken() - _state[0].told
    _state[0].told |= found
    return sorted(found)


def layout() -> int:
    """A number that changes with the source: numbers of branches are of one layout."""
    return zlib.crc32("".join(f"{name} {offset};" for name, (_, offset) in _layout()[0].items()).encode())


@functools.cache
def total() -> int:
    """How many branches there are."""
    found: set[int] = set()
    for path, offset in _layout()[0].values():
        marked = _Marked(offset)
        marked.visit(ast.parse(path.read_bytes()))
        found |= marked.numbers
    return len(found)


def _ones(content: bytes) -> set[int]:
    found, at = set(), content.find(1)
    while at >= 0:
        found.add(at)
        at = content.find(1, at + 1)
    return found


@functools.cache
def _layout() -> tuple[dict[str, tuple[Path, int]], int]:
    """Every module's file and its first number, two for each line; and how many there are."""
    found: dict[str, tuple[Path, int]] = {}
    offset = 0
    for name, path in _modules():
        found[name] = path, offset
        offset += 2 * (path.read_bytes().count(b"\n") + 2)
    return found, offset


def _modules() -> Iterator[tuple[str, Path]]:
    for room in ROOMS:
        folder = _PACKAGE / room.split(".")[1]
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            yield ".".join([room, *(p for p in parts if p != "__init__")]), path


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _layout()[0]:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(fullname, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    """Loads a module with its branches marked; its code is not kept, unlike that of others."""

    def get_code(self, fullname: str) -> CodeType:
        tree = ast.parse(self.get_data(self.path), self.path)
        _Marked(_layout()[0][fullname][1]).visit(tree)
        code: CodeType = compile(ast.fix_missing_locations(tree), self.path, "exec", dont_inherit=True)
        return code

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__[_NAME] = _state[0].own
        super().exec_module(module)


class _Marked(ast.NodeTransformer):
    """Puts a mark at the beginning of every block."""

    def __init__(self, offset: int) -> None:
        self._offset = offset
        self.numbers: set[int] = set()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.generic_visit(node)
        told = isinstance(node.body[0], ast.Expr) and isinstance(node.body[0].value, ast.Constant)
        at = 1 if told and len(node.body) > 1 else 0
        node.body.insert(at, self._mark(node.body[at].lineno, 0))
        return node

    def visit_If(self, node: ast.If) -> ast.AST:
        self.generic_visit(node)
        if not (isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
            self._both(node)
        return node

    def visit_For(self, node: ast.For) -> ast.AST:
        self.generic_visit(node)
        self._both(node)
        return node

    def visit_While(self, node: ast.While) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.test, ast.Constant):
            self._begin(node.body)  # it has no end
        else:
            self._both(node)
        return node

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> ast.AST:
        self.generic_visit(node)
        self._begin(node.body)
        return node

    def visit_match_case(self, node: ast.match_case) -> ast.AST:
        self.generic_visit(node)
        self._begin(node.body)
        return node

    def _both(self, node: ast.If | ast.For | ast.While) -> None:
        self._begin(node.body)
        if node.orelse:
            self._begin(node.orelse)
        else:
            node.orelse = [self._mark(node.lineno, 1)]

    def _begin(self, body: list[ast.stmt]) -> None:
        body.insert(0, self._mark(body[0].lineno, 0))

    def _mark(self, line: int, which: int) -> ast.stmt:
        number = self._offset + 2 * line + which
        self.numbers.add(number)
        place = ast.Subscript(ast.Name(_NAME, ast.Load()), ast.Constant(number), ast.Store())
        mark = ast.Assign([place], ast.Constant(1), lineno=line, end_lineno=line, col_offset=0, end_col_offset=0)
        return ast.fix_missing_locations(mark)
