"""The examples in the documentation of the languages are programs: they parse, verify, and print as they stand."""

from __future__ import annotations

import re
import textwrap
from importlib.resources import files
from types import ModuleType

import pytest

from effcc.ir import graph, kernel, loops, program
from effcc.ir.parser import parse_any
from effcc.ir.printer import print_any
from effcc.ir.verifier import verify_any


@pytest.mark.parametrize("module", [graph, kernel, loops, program], ids=lambda m: m.__name__)
def test_the_example_of_a_language_is_in_that_language(module: ModuleType) -> None:
    (example,) = re.findall(r"^    \w+ @.*?^    }$", module.__doc__ or "", re.MULTILINE | re.DOTALL)
    text = textwrap.dedent(example)
    value = parse_any(text)
    verify_any(value)
    assert print_any(value) == text


def test_the_cascade_that_explains_the_grammar_is_one() -> None:
    page = files("effcc.ir").joinpath("grammar.lark").read_text(encoding="utf-8")
    (block,) = re.findall(r"^//   kernel @.*?^//   }$", page, re.MULTILINE | re.DOTALL)
    text = "\n".join(re.split(r"(?<=\S) {4,}", line[5:])[0] for line in block.split("\n"))
    value = parse_any(text)
    verify_any(value)
    assert print_any(value) == text
