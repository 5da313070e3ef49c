"""What depends on weights alone is prepared once, unless that would only cost memory."""

from __future__ import annotations

import numpy as np

from effcc.ir.interpreter import run_graph
from effcc.ir.parser import parse_graph
from effcc.passes.hoist import hoist


def ops(graph) -> list[str]:
    return [n.op for n in graph.nodes] if graph is not None else []


FOLDED = """
    graph @main(%x: f32[2,8], weight %w: f32[4,8], weight %g: f32[4]) {
      %scale = exp %g : f32[4]
      %column = reshape %scale {shape=[4,1]} : f32[4,1]
      %scaled = mul %w, %column : f32[4,8]
      %y = linear %x, %scaled : f32[2,4]
      return %y
    }
"""


def test_arithmetic_on_weights_is_prepared():
    split = hoist(parse_graph(FOLDED))
    assert ops(split.prepare) == ["exp", "reshape", "mul"]
    assert ops(split.main) == ["linear"]
    assert [p.name for p in split.prepare.params] == ["w", "g"]
    assert [v.name for v in split.prepare.outputs] == ["scaled"]
    assert [p.name for p in split.main.params] == ["x", "w", "g", "scaled"]
    assert split.main.weights == {"w", "g", "scaled"}


def test_prepare_then_main_computes_what_the_graph_computed():
    graph = parse_graph(FOLDED)
    split = hoist(graph)
    random = np.random.default_rng(0)
    x, w, g = (random.standard_normal(s).astype(np.float32) for s in ((2, 8), (4, 8), (4,)))
    (scaled,) = run_graph(split.prepare, [w, g])
    np.testing.assert_array_equal(run_graph(split.main, [x, w, g, scaled])[0], run_graph(graph, [x, w, g])[0])


def test_a_view_of_a_weight_stays_where_it_is_read():
    graph = parse_graph("""
        graph @main(%x: f32[2,8], weight %w: f32[8,4]) {
          %t = transpose %w {perm=[1,0]} : f32[4,8]
          %y = linear %x, %t : f32[2,4]
          return %y
        }
    """)
    assert hoist(graph).prepare is None
    assert hoist(graph).main is graph


def test_a_view_of_a_prepared_value_stays_too():
    split = hoist(
        parse_graph("""
        graph @main(%x: f32[2,8], weight %w: f32[8,4]) {
          %e = exp %w : f32[8,4]
          %t = transpose %e {perm=[1,0]} : f32[4,8]
          %y = linear %x, %t : f32[2,4]
          return %y
        }
    """)
    )
    assert (ops(split.prepare), ops(split.main)) == (["exp"], ["transpose", "linear"])


def test_a_mask_made_of_counters_stays_in_the_kernel():
    graph = parse_graph("""
        graph @main(%x: f32[8]) {
          %i = iota {size=8} : i64[8]
          %n = constant {value=4, dtype=i64, shape=[]} : i64[]
          %m = lt %i, %n : bool[8]
          %z = constant {value=0.0, dtype=f32, shape=[]} : f32[]
          %y = where %m, %x, %z : f32[8]
          return %y
        }
    """)
    assert hoist(graph).prepare is None


def test_an_expensive_table_of_counters_is_prepared():
    split = hoist(
        parse_graph("""
        graph @main(%x: f32[8]) {
          %i = iota {size=8, dtype=f32} : f32[8]
          %c = cos %i : f32[8]
          %y = mul %x, %c : f32[8]
          return %y
        }
    """)
    )
    assert (ops(split.prepare), ops(split.main)) == (["iota", "cos"], ["mul"])


def test_what_has_symbolic_sizes_stays():
    graph = parse_graph("""
        graph @main(%x: f32[s0,4], weight %w: f32[4]) where s0 in 2..9 {
          %b = broadcast %w {shape=[s0,4]} : f32[s0,4]
          %e = exp %b : f32[s0,4]
          %y = mul %x, %e : f32[s0,4]
          return %y
        }
    """)
    assert hoist(graph).prepare is None


def test_an_output_that_depends_on_weights_alone_is_computed_at_every_call():
    split = hoist(
        parse_graph("""
        graph @main(%x: f32[4], weight %w: f32[4]) {
          %e = exp %w : f32[4]
          %y = neg %e : f32[4]
          return %y
        }
    """)
    )
    assert (ops(split.prepare), ops(split.main)) == (["exp"], ["neg"])


def test_a_parameter_that_the_call_updates_is_no_weight():
    graph = parse_graph("""
        graph @main(%x: f32[4], weight %w: f32[4]) {
          %e = exp %w : f32[4]
          %y = mul %x, %e : f32[4]
          update %w, %y
          return %e
        }
    """)
    assert hoist(graph).prepare is None


def test_what_both_halves_compute_has_two_names() -> None:
    graph = parse_graph("""graph @g(weight %w: f32[6,2]) {
      %c = cumsum %w {axis=0} : f32[6,2]
      %e = exp %c : f32[6,2]
      %s = sum %e {axes=[0], keepdim=false} : f32[2]
      %t = tanh %s : f32[2]
      return %c, %t
    }""")
    split = hoist(graph)
    assert split.prepare is not None
    inner = {r.name for n in split.prepare.nodes for r in n.results} - {v.name for v in split.prepare.outputs}
    assert not inner & {r.name for n in split.main.nodes for r in n.results}
    assert split.prepare.weights == {"w"}
