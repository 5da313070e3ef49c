"""Every graph that the fuzzer once found failing, taken through all oracles again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import effcc.fuzz
from effcc.fuzz.generate import case_of
from effcc.fuzz.native import Runner
from effcc.fuzz.oracles import examine, judge, native
from effcc.fuzz.triton import Triton
from effcc.ir.parser import parse_graph
from effcc.target import Target

CORPUS = sorted((Path(effcc.fuzz.__file__).parent / "corpus").glob("*.ir"))


@pytest.mark.parametrize("path", CORPUS, ids=lambda p: p.stem)
def test_a_graph_that_once_failed_computes_what_eager_computes(path: Path) -> None:
    case = case_of(parse_graph(path.read_text()))
    examined = examine(case, Target.detect(), mlir=_has_mlir())
    assert examined.failure is None, examined.failure
    program = native(examined)
    assert program is not None
    with Runner() as runner:
        (outcome,) = runner.run([program], Target.detect())
    assert judge(examined, outcome) is None


@pytest.fixture(scope="module")
def triton() -> Iterator[Triton]:
    pytest.importorskip("triton")
    with Triton() as made:
        yield made


@pytest.mark.parametrize("path", CORPUS, ids=lambda p: p.stem)
def test_a_graph_that_once_failed_is_right_in_triton(path: Path, triton: Triton) -> None:
    examined = examine(case_of(parse_graph(path.read_text())), Target.detect())
    assert triton.judge(examined) is None


def _has_mlir() -> bool:
    try:
        import torch_mlir  # noqa: F401
    except ImportError:
        return False
    return True
