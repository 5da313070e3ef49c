"""Where encoded weights are decoded: by prediction, and where nothing else is possible."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from effcc.ir.encodings import storage
from effcc.ir.parser import encoding_of, parse_graph
from effcc.passes.encodings import Choice, encode, spell_out_encodings
from effcc.passes.encodings.choose import LOOK_SECONDS, dense_seconds, stored_seconds
from effcc.passes.hoist import Hoisted, hoist
from effcc.target import MIB, generic

TARGET = generic("avx512")


def chosen(text: str) -> tuple[Hoisted, tuple[Choice, ...]]:
    return encode(hoist(parse_graph(text)), TARGET)


def sparse_linear(blocks: int, rows: int) -> str:
    return f"""
    graph @g(%x: f32[{rows},768], weight %c: i32[192,{blocks}], weight %v: f32[192,{blocks},4]) {{
      %w = decode %c, %v {{encoding=<block(4,1)>, dtype=f32, shape=[768,768]}} : f32[768,768]
      %y = linear %x, %w : f32[{rows},768]
      return %y
    }}
    """


def test_a_sparse_weight_is_read_as_stored() -> None:
    split, (choice,) = chosen(sparse_linear(154, 128))
    assert choice.decision == "stored"
    assert split.prepare is None
    assert "128 rows" in choice.reason


def test_a_weight_that_keeps_every_block_is_faster_dense() -> None:
    split, (choice,) = chosen(sparse_linear(768, 512))
    assert choice.decision == "decoded"
    assert split.prepare is not None
    assert [n.op for n in split.prepare.nodes] == ["decode"]
    assert split.main.nodes[0].op == "linear"


@pytest.mark.parametrize(("share", "decision"), [(0.1, "stored"), (0.2, "stored"), (0.4, "decoded")])
def test_gathered_rows_are_priced_by_what_comes_from_the_second_cache(share: float, decision: str) -> None:
    """Each element of free places reads a row of activations of its own, so that few of them have to be left."""
    kept = round(share * 768 * 768)
    _, (choice,) = chosen(f"""
    graph @g(%x: f32[128,768], weight %s: i32[769], weight %c: i32[{kept}], weight %v: f32[{kept}]) {{
      %w = decode %s, %c, %v {{encoding=<csr>, dtype=f32, shape=[768,768]}} : f32[768,768]
      %y = linear %x, %w : f32[128,768]
      return %y
    }}
    """)
    assert choice.decision == decision


def test_an_int8_weight_is_never_copied_to_floats() -> None:
    for rows in (1, 2, 5, 12, 128, 4096):
        for size in (64, 768, 4096):
            stored = storage(encoding_of("int8"), (size, size))
            assert stored_seconds(stored, rows, TARGET) <= 1.5 * dense_seconds(stored, rows, TARGET)


@pytest.mark.parametrize("rows", [1, 128])
@pytest.mark.parametrize("notation", ["int4(group=32)", "nf4(group=64)", "int5(group=32)", "fp8"])
def test_whichever_is_predicted_to_be_quicker_is_chosen(notation: str, rows: int) -> None:
    """No product is slower for how its weight is stored: reading codes once pays, for many rows floats do. What is
    decoded is a copy, and each call looks whether the weight is still the one that it was made of."""
    target = generic("avx512")
    stored = storage(encoding_of(notation), (256, 512))
    decoded = dense_seconds(stored, rows, target) + LOOK_SECONDS
    quicker = "stored" if stored_seconds(stored, rows, target) <= decoded else "decoded"
    graph = f"""
        graph @g(%x: f32[{rows},512], weight %w: f32[256,512] = {stored.encoding}) {{
          %y = linear %x, %w : f32[{rows},256]
          return %y
        }}
        """
    _, (choice,) = encode(hoist(spell_out_encodings(parse_graph(graph))), target)
    assert choice.decision == quicker


def test_what_does_not_fit_the_cache_together_comes_from_memory() -> None:
    """One layer's floats would stay in L3; those of sixteen push each other out of it, their codes do not."""
    target = replace(generic("avx512"), l3_bytes=4 * MIB)

    def predicted(layers: int) -> tuple[float, float]:
        weights = ", ".join(f"weight %w{i}: f32[512,512] = int4(group=32)" for i in range(1, layers + 1))
        body = "\n".join(f"%y{i} = linear %y{i - 1}, %w{i} : f32[1,512]" for i in range(1, layers + 1))
        text = f"graph @g(%y0: f32[1,512], {weights}) {{\n{body}\nreturn %y{layers}\n}}"
        choice = encode(hoist(spell_out_encodings(parse_graph(text))), target)[1][0]
        stored, decoded = re.findall(r"[\d.]+(?= us)", choice.reason)
        return float(stored), float(decoded) - LOOK_SECONDS * 1e6 / layers

    (stored, decoded), (stored16, decoded16) = predicted(1), predicted(16)
    assert stored16 == stored
    assert decoded16 > 1.7 * decoded


def test_four_bits_are_read_as_stored_by_one_row_on_either_machine() -> None:
    for target in (generic("avx512"), generic("avx2")):
        stored = storage(encoding_of("int4(group=32)"), (4096, 4096))
        assert stored_seconds(stored, 1, target) < 0.7 * dense_seconds(stored, 1, target)


def test_a_decoded_weight_that_is_a_result_is_computed_at_every_call() -> None:
    text = """
    graph @g(weight %q: i8[8,12], weight %s: f32[8]) {
      %w = decode %q, %s {encoding=<int8>, dtype=f32, shape=[8,12]} : f32[8,12]
      return %w
    }
    """
    split, (choice,) = chosen(text)
    assert choice.decision == "decoded"
    assert [n.op for n in split.main.nodes] == ["decode"]


def test_graphs_without_encodings_stay_as_they_are() -> None:
    text = "graph @g(%x: f32[2,3], weight %w: f32[4,3]) { %y = linear %x, %w : f32[2,4] return %y }"
    split = hoist(parse_graph(text))
    assert encode(split, TARGET) == (split, ())


def test_few_rows_gather_element_by_element_which_half_of_a_weight_is_not_worth() -> None:
    """Half takes longer than all of them in order, if not by as much as a call takes to look after a copy."""
    most, half, tenth = (chosen(sparse_linear(blocks, 1))[1][0] for blocks in (600, 384, 76))
    assert (most.decision, tenth.decision) == ("decoded", "stored"), f"{most}\n{tenth}"
    stored, decoded = map(float, re.findall(r"[\d.]+(?= us)", half.reason))
    assert stored > decoded - LOOK_SECONDS * 1e6


def test_codes_that_are_decoded_one_by_one_are_priced_by_their_operations() -> None:
    """For eight rows an element serves few multiply-adds: scales of groups, powers of two above all, take too long."""
    seconds = {}
    for values in ("int8", "nf4", "bfp(group=16)"):
        stored = storage(encoding_of(f"block(4,1) . {values}"), (768, 768), count=115)
        seconds[values] = stored_seconds(stored, 8, TARGET)
        assert (seconds[values] < dense_seconds(stored, 8, TARGET)) == (values == "int8")
    assert seconds["int8"] < seconds["nf4"] < seconds["bfp(group=16)"]
