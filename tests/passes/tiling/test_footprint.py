"""The closed form of a tile's footprint against isl's count of the points that the tile really touches."""

from __future__ import annotations

import islpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effcc.passes.tiling.constraints import Name, evaluate
from effcc.passes.tiling.footprint import Access, footprint, footprint_expr, is_contiguous

AXES = ("i", "j", "k")
tiles = st.fixed_dictionaries({a: st.integers(1, 5) for a in AXES})


def isl_count(access: Access, tile: dict[str, int]) -> int:
    """How many different elements the tile's points touch, counted by isl."""
    box = " and ".join(f"0 <= {a} < {tile[a]}" for a in AXES)
    index = ", ".join(" + ".join(["0", *(f"{c} * {a}" for a, c in dim.items())]) for dim in access.dims)
    touched = islpy.Map(f"{{ [{', '.join(AXES)}] -> [{index}] : {box} }}").range()
    return int(touched.count_val().to_str())


@settings(max_examples=150, deadline=None)
@given(
    coefficients=st.lists(st.fixed_dictionaries({a: st.integers(-3, 3) for a in AXES}), min_size=1, max_size=3),
    tile=tiles,
)
def test_a_tile_never_touches_more_than_its_footprint(coefficients, tile):
    access = Access(tuple(coefficients))
    assert isl_count(access, tile) <= footprint(access, tile)


@settings(max_examples=150, deadline=None)
@given(owner=st.tuples(*[st.integers(0, 2)] * 3), signs=st.tuples(*[st.sampled_from((-1, 1))] * 3), tile=tiles)
def test_the_footprint_is_exact_where_dimensions_share_no_axis_and_leave_no_gaps(owner, signs, tile):
    dims = [{a: s for a, d, s in zip(AXES, owner, signs, strict=True) if d == dim} for dim in range(3)]
    access = Access(tuple(dims))
    assert isl_count(access, tile) == footprint(access, tile)


@pytest.mark.parametrize(
    ("dims", "tile", "elements"),
    [
        (({"i": 1}, {"k": 1}), {"i": 14, "k": 256}, 14 * 256),
        (({"i": 1, "j": 1}, {"k": 1}), {"i": 7, "j": 3, "k": 16}, 9 * 16),
        (({"i": 2, "j": 1}, {"k": 1}), {"i": 4, "j": 3, "k": 16}, 9 * 16),
        (({"k": 1},), {"i": 100, "k": 8}, 8),
        ((), {"i": 100}, 1),
    ],
)
def test_footprints_of_products_and_convolutions(dims, tile, elements):
    access = Access(dims)
    assert footprint(access, tile) == elements
    assert isl_count(access, {"i": 1, "j": 1, "k": 1} | tile) == elements


@settings(max_examples=100, deadline=None)
@given(coefficients=st.lists(st.fixed_dictionaries({a: st.integers(-3, 3) for a in AXES}), max_size=3), tile=tiles)
def test_the_expression_has_the_value_of_the_closed_form(coefficients, tile):
    access = Access(tuple(coefficients))
    assert evaluate(footprint_expr(access, {a: Name(a) for a in AXES}), tile) == footprint(access, tile)


def test_contiguity_is_a_unit_step_in_the_last_dimension_alone():
    access = Access(({"i": 1}, {"j": 2, "k": 1}))
    assert [is_contiguous(access, a) for a in AXES] == [False, False, True]
    assert not is_contiguous(Access(({"k": 1}, {"k": 1})), "k")
