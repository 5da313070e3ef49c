"""Schedules are text that reads back as it was; they fit their kernel or say why not; whatever fits computes it."""

from __future__ import annotations

import re
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effcc.codegen.cpp.vectorize import vectorize
from effcc.codegen.lower import lower
from effcc.errors import IRSyntaxError, ScheduleError
from effcc.fuzz.schedules import draw_schedule
from effcc.ir import schedule as language
from effcc.ir.interpreter import run_kernel, run_loops
from effcc.ir.kernel import Kernel
from effcc.ir.parser import parse_kernel, parse_schedule, parse_schedules
from effcc.ir.printer import print_schedule
from effcc.ir.schedule import Do, Hold, Loop, Node, Pack, Schedule
from effcc.ir.verifier import verify_loops, verify_schedule
from effcc.ir.verifier.schedules import Machine
from effcc.target import generic

AVX2 = Machine("avx2", vector_bytes=32, vector_registers=16, cache_bytes=1 << 20)

LINEAR = parse_kernel("""
    kernel @linear(A: f32[5,10], W: f32[11,10], B: f32[11]) -> (Y: f32[5,11]) over m=5, n=11, k=10 {
      O[m,n] = sum(k: A[m,k] * W[n,k])
      Y[m,n] = exp(O[m,n] * 0.1) + B[n]
    }""")
BLOCKED = """schedule @linear {
  parallel n by 16, m by 4 {
    hold O in local {
      for k by 4 {
        for n by 8 lanes, m by 2 unroll {
          hold O in registers {
            for k by 1 { do O }
          }
        }
      }
      for n by 8 lanes, m by 2 unroll { do Y }
    }
  }
}"""
ATTENTION = parse_kernel("""
    kernel @attention(Q: f32[3,2], K: f32[9,2], V: f32[9,5]) -> (Y: f32[3,5]) over m=3, n=9, d=2, f=5 {
      S[m,n] = sum(d: Q[m,d] * K[n,d])
      M[m] = max(n: S[m,n])
      P[m,n] = exp(S[m,n] - M[m])
      D[m] = sum(n: P[m,n]) rescale exp(M'[m] - M[m])
      O[m,f] = sum(n: P[m,n] * V[n,f]) rescale exp(M'[m] - M[m])
      Y[m,f] = O[m,f] / D[m]
    }""")
ONE_PASS = """schedule @attention {
  parallel m by 2 {
    hold M, D, O in local {
      for n by 4 {
        hold S, P in local {
          for n by 4 lanes, m by 2 unroll {
            hold S in registers {
              for d by 1 { do S }
            }
          }
          for m by 1 {
            hold M in registers {
              for n by 4 lanes { do M }
            }
            hold D in registers {
              for n by 4 lanes {
                do P
                do D
              }
            }
          }
          for f by 4 lanes, m by 2 unroll {
            hold O in registers {
              for n by 1 { do O }
            }
          }
        }
      }
      for m by 1, f by 4 lanes { do Y }
    }
  }
}"""
SOFTMAX = parse_kernel("""
    kernel @softmax(X: f32[4,50]) -> (P: f32[4,50]) over i=4, n=50 {
      M[i] = max(n: X[i,n])
      E[i,n] = exp(X[i,n] - M[i])
      D[i] = sum(n: E[i,n])
      P[i,n] = E[i,n] / D[i]
    }""")
KERNELS = {"linear": (LINEAR, BLOCKED), "attention": (ATTENTION, ONE_PASS)}


def computes(kernel: Kernel, schedule: Schedule) -> None:
    """Whether the loops of a schedule compute its kernel."""
    nest = lower(kernel, schedule)
    verify_loops(nest)
    random = np.random.default_rng(0)
    arrays = {p.name: random.standard_normal([int(n) for n in p.type.shape]).astype(np.float32) for p in kernel.params}
    expected = run_kernel(kernel, arrays)
    for name, got in run_loops(nest, arrays).items():
        np.testing.assert_allclose(got, expected[name], rtol=2e-4, atol=1e-5)


# Text ----------------------------------------------------------------------------------------------------------------

NAMES = st.from_regex(r"[A-Za-z][a-z0-9_]{0,3}(\.[0-9])?", fullmatch=True)


def bodies(depth: int) -> st.SearchStrategy[tuple[Node, ...]]:
    """Bodies of any nodes: they need to mean nothing."""
    node: st.SearchStrategy[Node] = st.builds(Do, NAMES)
    if depth:
        inside = bodies(depth - 1)
        kinds, ways = st.sampled_from(["for", "parallel"]), st.sampled_from(["", "lanes", "unroll", "block"])
        node |= st.builds(Loop, kinds, NAMES, st.integers(1, 999), inside, ways, st.integers(1, 4))
        targets = st.lists(NAMES, min_size=1, max_size=3).map(tuple)
        node |= st.builds(Hold, targets, st.sampled_from(["local", "registers"]), inside)
    return st.lists(node, max_size=3).map(tuple)


PACKS = st.builds(Pack, NAMES, NAMES, st.integers(1, 99), st.lists(NAMES, max_size=2).map(tuple))
SCHEDULES = st.builds(
    Schedule, bodies(4), st.lists(PACKS, max_size=2).map(tuple), st.floats(0, 1e6) | st.just(0.0),
    st.lists(st.text(max_size=9), max_size=2).map(tuple), st.integers(0, 8),
)  # fmt: skip


@given(schedule=SCHEDULES)
def test_what_is_printed_reads_back_as_it_was(schedule: Schedule) -> None:
    text = print_schedule("a.kernel", schedule)
    written = parse_schedule(text)
    assert written.schedule == schedule and written.kernel == "a.kernel"
    assert print_schedule("a.kernel", written.schedule) == text


@pytest.mark.parametrize("name", KERNELS)
def test_the_examples_fit_print_as_written_and_compute(name: str) -> None:
    kernel, text = KERNELS[name]
    schedule = parse_schedule(text).check(kernel, AVX2)
    assert print_schedule(name, schedule) == text
    computes(kernel, schedule)


@pytest.mark.parametrize("name", KERNELS)
def test_the_examples_of_the_languages_page_fit_their_kernels(name: str) -> None:
    assert language.__doc__ is not None
    (text,) = re.findall(rf"^    schedule @{name} {{.*?^    }}$", language.__doc__, re.MULTILINE | re.DOTALL)
    kernel, _ = KERNELS[name]
    sizes = {"linear": {"m": 128, "n": 768, "k": 3072}, "attention": {"m": 64, "n": 512, "d": 64, "f": 64}}[name]
    large = replace(kernel, axes=tuple(sizes.items()))
    avx512 = Machine("avx512", vector_bytes=64, vector_registers=32, cache_bytes=1 << 20)
    parse_schedule(text).check(large, avx512)


def test_the_example_of_the_languages_page_for_a_gpu_computes() -> None:
    assert language.__doc__ is not None
    (text,) = re.findall(r"^    schedule @softmax .*?^    }$", language.__doc__, re.MULTILINE | re.DOTALL)
    computes(SOFTMAX, parse_schedule(text).check(SOFTMAX, GPU))


def test_two_schedules_of_a_kernel_are_refused() -> None:
    with pytest.raises(IRSyntaxError, match="@linear has a schedule already") as caught:
        parse_schedules(f"{BLOCKED}\n{BLOCKED}")
    assert caught.value.line == 1 + len(BLOCKED.splitlines())


# What does not fit ---------------------------------------------------------------------------------------------------

MISFITS = [  # an edit of a schedule, the line that the caret is under, and what is said
    ("linear", "parallel n by 16", "parallel q by 16", "parallel q by 16", "no axis 'q'; its axes are m, n, k"),
    ("linear", "by 8 lanes, m by 2 unroll {\n          hold", "by 8 lanes, m by 20 unroll {\n          hold",
     "hold O in registers", "accumulators of O are 20 vectors: avx2 has 16"),
    ("linear", "parallel n by 16", "parallel k by 8, n by 16", "k by 8", "points of k do not run on their own"),
    ("linear", "hold O in registers", "hold Y in registers", "hold Y in registers", "Y is no reduction"),
    ("linear", "    hold O in local {\n", "    hold Y in local {\n", "hold O in registers",
     "partial results of O rest nowhere between turns of `for k by 4`"),
    ("linear", "{ do Y }", "{ do Y }\nfor n by 8 lanes, m by 2 unroll { do Y }", "do Y }\n", "Y is computed already"),
    ("linear", "      for n by 8 lanes, m by 2 unroll { do Y }\n", "", "schedule @linear", "nothing computes Y"),
    ("linear", "n by 8 lanes, m by 2 unroll { do Y }", "n by 8 lanes { do Y }", "do Y",
     "Y is computed at points of m, which no loop around reaches"),
    ("linear", "for k by 1 {", "for k by 1, k by 1 {", "k by 1 { do", "k is at a point already"),
    ("linear", "{ do Y }", "{ do Z }", "do Z", "defines 'Z'; it has O, Y"),
    ("linear", "n by 8 lanes, m by 2 unroll { do Y }", "n by 8 block, m by 2 block { do Y }", "n by 8 block",
     "on avx2 lanes, unroll or packed"),
    ("attention", "for n by 4 {\n        hold S, P", "for n by 4 {\n        hold P", "do M",
     "M reads S, which is not there any more: hold S around both"),
    ("attention", "do P\n", "", "do D", "D reads P, which is computed later"),
    ("attention", "hold M, D, O in local", "hold D, O in local", "hold M in registers",
     "partial results of M rest nowhere"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "old", "new", "place", "message"), MISFITS)
def test_what_does_not_fit_is_shown_where_it_stands(name: str, old: str, new: str, place: str, message: str) -> None:
    kernel, text = KERNELS[name]
    assert old in text
    edited = text.replace(old, new, 1)
    with pytest.raises(ScheduleError) as caught:
        parse_schedule(edited, "edited.ir").check(kernel, AVX2)
    said = str(caught.value)
    assert message in said
    first, line, caret = said.splitlines()
    number, column = (int(n) for n in first.split(":")[1:3])
    assert line.strip() == edited.splitlines()[number - 1].strip()
    assert place.splitlines()[0].split()[-1] in line[caret.index("^") :] or place.split()[0] in line
    assert len(caret) == column + 2


def test_tiles_of_packed_neighbours_lie_in_one_panel_each() -> None:
    kernel = parse_kernel("""kernel @linear(X: i8[8,33], W: i8[48,33]) -> (O: i32[8,48]) over m=8, n=48, k=33 {
        O[m,n] = sum<i32>(k: cast<i32>(X[m,k]) * cast<i32>(W[n,k])) }""")
    text = """schedule @linear {
  pack W along n by 16 order k group 4
  parallel n by 32, m by 8 {
    for n by 16 lanes, m by 8 unroll {
      hold O in registers {
        for k by 4 packed { do O }
      }
    }
  }
}"""
    machine = replace(AVX2, vector_bytes=64, vector_registers=32)
    parse_schedule(text).check(kernel, machine)
    for old, new in (("parallel n by 32", "parallel n by 7"), ("n by 16 lanes", "n by 32 lanes")):
        with pytest.raises(ScheduleError, match=r"W is packed by 16: tiles of n by \d+ do not lie in a panel each"):
            parse_schedule(text.replace(old, new)).check(kernel, machine)


def test_a_local_buffer_that_no_cache_holds_is_refused_with_its_bytes() -> None:
    small = replace(AVX2, cache_bytes=200)
    with pytest.raises(ScheduleError, match="O in local take 256 bytes: a core of avx2 caches 200"):
        parse_schedule(BLOCKED).check(LINEAR, small)


ON_A_GPU = """schedule @linear warps 4 {
  parallel n by 16 block, m by 16 block {
    hold O in registers {
      for k by 16 block stages 3 { do O }
    }
    do Y
  }
}"""


ONE_PASS_ON_A_GPU = """schedule @attention warps 4 {
  parallel m by 2 block {
    hold M, D, O in registers {
      for n by 4 block stages 2 {
        hold P in registers {
          hold S in registers {
            for d by 2 block { do S }
          }
          hold M in registers { do M }
          hold D in registers {
            do P
            do D
          }
          for f by 8 block {
            hold O in registers { do O }
          }
        }
      }
      for f by 8 block { do Y }
    }
  }
}"""
GPU = Machine("sm_80", vector_bytes=128, vector_registers=255, cache_bytes=1 << 17, blocks=True)
KERNELS_ON_A_GPU = {"linear": (LINEAR, ON_A_GPU), "attention": (ATTENTION, ONE_PASS_ON_A_GPU)}


def test_on_a_gpu_tiles_are_blocks_of_one_size() -> None:
    gpu = replace(AVX2, name="sm_80", blocks=True)
    assert parse_schedule(ON_A_GPU).check(LINEAR, gpu).stages == 3
    with pytest.raises(ScheduleError, match="on a GPU a tile of 16 points is a block: `k by 16 block`"):
        parse_schedule(ON_A_GPU.replace("k by 16 block", "k by 16")).check(LINEAR, gpu)
    two = ON_A_GPU.replace("    do Y\n  }", "  }\n  parallel n by 32 block, m by 16 block { do Y }")
    with pytest.raises(ScheduleError, match="n is cut by 16 elsewhere"):
        parse_schedule(two).check(LINEAR, gpu)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("warps 4", "warps 3", "a program runs on 3 warps: sm_80 takes 1, 2, 4, ... up to 32"),
        ("warps 4", "warps 64", "a program runs on 64 warps"),
        (" warps 4", "", "a program runs on 0 warps"),
        ("do O }\n    }\n    do Y", "do O }\n    do Y }", "Y reads O inside of its hold in registers, before it is"),
        ("n by 16 block,", "n by 16,", "on a GPU a tile of 16 points is a block: `n by 16 block`"),
        ("n by 16 block", "n by 24 block", "a block of 24 points of n: on a GPU blocks are powers of two"),
        ("n by 16 block", "n by 16384 block", "O in registers take 1048576 bytes: 4 warps of sm_80 have 130560"),
    ],
)
def test_what_a_gpu_has_no_room_for_is_refused_with_the_numbers(old: str, new: str, message: str) -> None:
    gpu = replace(AVX2, name="sm_80", vector_bytes=128, vector_registers=255, blocks=True)
    with pytest.raises(ScheduleError) as caught:
        parse_schedule(ON_A_GPU.replace(old, new)).check(LINEAR, gpu)
    assert message in str(caught.value)
    assert "^" in str(caught.value)


def test_a_block_of_registers_goes_on_where_its_partial_sums_rest() -> None:
    """As attention's: held around the loop over keys, and again inside, where a turn's sums begin."""
    schedule = parse_schedule(ONE_PASS_ON_A_GPU).check(ATTENTION, GPU)
    assert print_schedule("attention", schedule) == ONE_PASS_ON_A_GPU
    computes(ATTENTION, schedule)


@pytest.mark.parametrize(("old", "new"), [("@linear", "@linear warps 4"), ("k by 4", "k by 4 stages 2")])
def test_what_only_a_gpu_has_is_refused_on_a_cpu(old: str, new: str) -> None:
    with pytest.raises(ScheduleError, match="avx2 is no GPU"):
        parse_schedule(BLOCKED.replace(old, new, 1)).check(LINEAR, AVX2)


def test_text_that_is_no_schedule_says_what_was_expected() -> None:
    with pytest.raises(IRSyntaxError, match="unexpected 'wide'; expected one of ") as caught:
        parse_schedule(BLOCKED.replace("n by 8 lanes, m", "n by 8 wide, m", 1))
    assert caught.value.line == 5


# Whatever fits computes ----------------------------------------------------------------------------------------------


REDUCED = parse_kernel("""
    kernel @shifted(X: f32[13]) -> (M: f32[], Y: f32[13]) over r=13, i=13 {
      M[] = max(r: X[r])
      Y[i] = X[i] - M[]
    }""")
PHASES = """schedule @shifted {
  hold M in registers {
    for r by 1 { do M }
  }
  parallel i by 2 lanes { do Y }
}"""


@pytest.mark.parametrize("tiles", ["i by 2 lanes", "i by 4, i by 3 lanes", "i by 8, i by 1", "i by 16 unroll"])
def test_parallel_tiles_of_every_kind_compute(tiles: str) -> None:
    schedule = parse_schedule(PHASES.replace("i by 2 lanes", tiles)).check(REDUCED, AVX2)
    computes(REDUCED, schedule)
    vectorize(lower(REDUCED, schedule), generic("avx2"))


def test_accumulators_held_twice_join() -> None:
    twice = BLOCKED.replace("hold O in registers {", "hold O in registers { hold O in registers {").replace(
        "do O }\n          }", "do O }\n          } }"
    )
    computes(LINEAR, parse_schedule(twice).check(LINEAR, AVX2))


CENTRED = parse_kernel("""
    kernel @centred(X: f32[8,6]) -> (Y: f32[8], Z: f32[8,6]) over i=8, k=6 {
      S[i] = sum(k: X[i,k])
      Y[i] = S[i] * 2
      Z[i,k] = X[i,k] - S[i]
    }""")


@pytest.mark.parametrize(
    ("nodes", "place", "message"),
    [
        (
            "hold S in registers {\nfor k by 2 { hold S in registers { for k by 1 { do S } } }\ndo Y }\n"
            "for k by 1 { do Z }",
            "Y", "Y reads S inside of its hold in registers, before it is whole: put it after that",
        ),
        (
            "hold S in registers {\nhold S in registers { for k by 1 { do S } }\nfor k by 8 lanes { do Z } }\ndo Y",
            "Z", "Z reads S inside of its hold in registers",
        ),
        ("hold S, S in registers { for k by 1 { do S } }\ndo Y\nfor k by 1 { do Z }",
         "hold S, S", "S is held twice by one hold: name it once"),
    ],
)  # fmt: skip
def test_what_is_held_twice_is_read_after_both_holds(nodes: str, place: str, message: str) -> None:
    text = "schedule @centred {\nfor i by 1 {\n" + nodes + "\n} }"
    with pytest.raises(ScheduleError, match=message) as caught:
        parse_schedule(text, "edited.ir").check(CENTRED, AVX2)
    first, line, caret = str(caught.value).splitlines()
    assert first.startswith("edited.ir:") and line[caret.index("^") :].startswith(place)


def test_what_tasks_make_anew_lives_in_its_block_where_nothing_holds_it() -> None:
    kernel = replace(parse_kernel("""
        kernel @scaled(W: f32[], X: f32[12]) -> (Y: f32[12]) over i=12 {
          R[] = rsqrt(W[] + 0.5)
          Y[i] = X[i] * R[]
        }"""), weights=frozenset({"W"}))  # fmt: skip
    computes(kernel, parse_schedule("schedule @scaled { parallel i by 4 { do R for i by 4 lanes { do Y } } }").schedule)
    with pytest.raises(ScheduleError, match="Y reads R, which is not there any more"):
        text = "schedule @scaled { for i by 4 { for i by 4 lanes { do R } for i by 4 lanes { do Y } } }"
        parse_schedule(text).check(kernel, AVX2)


def test_other_threads_do_not_read_what_one_has_in_a_register() -> None:
    inner = replace(REDUCED, outputs=REDUCED.outputs[1:])
    with pytest.raises(ScheduleError, match="in a register of one thread: compute it inside of `parallel i`"):
        parse_schedule(PHASES).check(inner, AVX2)


@pytest.mark.parametrize("name", KERNELS)
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1 << 30))
def test_whatever_the_verifier_accepts_computes_the_kernel(name: str, seed: int) -> None:
    kernel, text = KERNELS[name]
    drawn = draw_schedule(kernel, parse_schedule(text).schedule, AVX2, Random(seed))
    verify_schedule(kernel, drawn, AVX2)
    computes(kernel, drawn)


@pytest.mark.parametrize("name", KERNELS_ON_A_GPU)
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1 << 30))
def test_whatever_the_verifier_accepts_computes_the_kernel_on_a_gpu(name: str, seed: int) -> None:
    kernel, text = KERNELS_ON_A_GPU[name]
    drawn = draw_schedule(kernel, parse_schedule(text).schedule, GPU, Random(seed))
    verify_schedule(kernel, drawn, GPU)
    computes(kernel, drawn)


def test_a_recurrence_stands_in_one_loop() -> None:
    """Cut in two loops over the scan, the first would read what the second computes."""
    kernel = parse_kernel("""
        kernel @r(X: f32[4,3]) -> (H: f32[4,3]) over t=4, n=3 scan t {
          A[t,n] = where(t > 0, H[t - 1,n], 0.0) * 0.5
          H[t,n] = A[t,n] + X[t,n]
        }""")
    one, two = (
        parse_schedule(f"schedule @r {{ hold A in local {{ for t by 1, n by 1 {{ do A {between} do H }} }} }}").schedule
        for between in ("", "} for t by 1, n by 1 {")
    )
    verify_schedule(kernel, one, AVX2)
    with pytest.raises(ScheduleError, match="inside of one loop over t"):
        verify_schedule(kernel, two, AVX2)


def test_what_rests_in_a_buffer_is_read_inside_of_its_hold() -> None:
    """Registers of a sum are read behind their hold, in its block; a buffer is not there any more."""
    kernel = parse_kernel("""
        kernel @s(X: f32[4,8]) -> (Y: f32[4,8]) over i=4, n=8 {
          S[i] = sum(n: X[i,n])
          Y[i,n] = X[i,n] / S[i]
        }""")
    sums = "for n by 4 { hold S in registers { for n by 1 { do S } } }"
    inside, outside = (
        parse_schedule(f"schedule @s {{ for i by 1 {{ hold S in local {{ {sums} {end} }} }}").schedule
        for end in ("for n by 1 { do Y } }", "} for n by 1 { do Y }")
    )
    verify_schedule(kernel, inside, AVX2)
    computes(kernel, inside)
    with pytest.raises(ScheduleError, match="Y reads S, which is not there any more"):
        verify_schedule(kernel, outside, AVX2)
