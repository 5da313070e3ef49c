"""A program as a C++ source with a `main`: what runs under sanitizers, which do not load into a plain Python.

    program THREADS SIZE... PATH BYTES PATH BYTES ...

There is one PATH and BYTES for every buffer of `pointer_table(separated(program))`, in order. A buffer is an allocation
of exactly so many bytes, so that a sanitizer sees every access beyond it. Inputs are read from their files, everything
else is written to its file after the run. Where a run-time check fails, it says so and exits with 6 (an index) or 7 (a
divisor).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from effcc.codegen.cpp.program import emit_program, entry_points, pointer_table, size_table
from effcc.errors import UnsupportedError
from effcc.ir.loops import LoopNest
from effcc.ir.program import Program
from effcc.target import Target

_MAIN = """
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char** argv) {
  const int sizes_given = @SIZES@, buffers_given = @BUFFERS@;
  const bool is_input[] = {@INPUTS@};
  if (argc != 2 + sizes_given + 2 * buffers_given) return 2;
  effcc::i64 sizes[sizes_given + 1] = {};
  for (int i = 0; i < sizes_given; ++i) sizes[i] = atoll(argv[2 + i]);
  effcc::i64 fault[3] = {};
  void* buffers[buffers_given + 1] = {};
  for (int i = 0; i < buffers_given; ++i) {
    const char* path = argv[2 + sizes_given + 2 * i];
    const size_t bytes = atoll(argv[3 + sizes_given + 2 * i]);
    buffers[i] = malloc(bytes);
    if (!is_input[i]) continue;
    FILE* file = fopen(path, "rb");
    if (!file || fread(buffers[i], 1, bytes, file) != bytes) return 3;
    fclose(file);
  }
@CALLS@
  for (int i = 0; i < buffers_given; ++i) {
    if (!is_input[i]) {
      FILE* file = fopen(argv[2 + sizes_given + 2 * i], "wb");
      const size_t bytes = atoll(argv[3 + sizes_given + 2 * i]);
      if (!file || fwrite(buffers[i], 1, bytes, file) != bytes) return 4;
      fclose(file);
    }
    free(buffers[i]);
  }
  return 0;
}
"""


_SAY = ' char text[512]; effcc::effcc_describe(fault, text, sizeof text); fprintf(stderr, "%s\\n", text);'


def separated(program: Program) -> Program:
    """`program` with every arena buffer an allocation of its own: buffers that overlap in an arena do so on purpose."""
    own = tuple(replace(b, space="scratch", offset=None) if b.space == "arena" else b for b in program.buffers)
    return replace(program, buffers=own)


def emit_standalone(program: Program, nests: Mapping[str, LoopNest], target: Target) -> str:
    """The source of an executable that runs `program` on files.

    Raises UnsupportedError for a program with extern calls.
    """
    if program.externs:
        raise UnsupportedError(
            f"program {program.name!r} calls PyTorch ({program.externs[0].op}), so it cannot run alone; "
            "expected a program of kernels only"
        )
    program = separated(program)
    table, known = pointer_table(program), program.by_name
    inputs = ", ".join("true" if known[n].space in ("input", "weight") else "false" for n in table)
    threads = "atoi(argv[1])"
    source = str(emit_program(program, nests, target))
    calls = []
    for entry in entry_points(program):
        called = f"effcc::{entry.name}(buffers, sizes, nullptr, {threads}, fault)"
        says = _SAY if "effcc_describe(" in source else ""
        calls.append(f"  if (const int code = {called}) {{{says} return 5 + code; }}")
    text = _MAIN.replace("@SIZES@", str(len(size_table(program)))).replace("@BUFFERS@", str(len(table)))
    text = text.replace("@INPUTS@", inputs or "false").replace("@CALLS@", "\n".join(calls))
    return source + text
