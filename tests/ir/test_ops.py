"""Every op of the table: its type rule, its NumPy reference and its index form say the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from effcc.errors import IRTypeError, UnknownNameError
from effcc.ir.form import FormBuilder
from effcc.ir.interpreter import run_kernel
from effcc.ir.kernel import Kernel, Param
from effcc.ir.ops import TABLE, lookup
from effcc.ir.verifier import verify_kernel
from tests.ir.op_samples import WITHOUT_SAMPLES, Sample, all_samples

SAMPLES = all_samples()


def kernel_of(sample: Sample) -> Kernel:
    """The cascade of one op applied to parameters x0, x1, ..."""
    spec = lookup(sample.op)
    attrs = spec.complete_attrs(sample.attrs)
    params = tuple(Param(f"x{k}", t) for k, t in enumerate(sample.types))
    outputs = tuple(Param(f"y{k}", t) for k, t in enumerate(spec.infer_types(sample.types, attrs)))
    builder = FormBuilder(params, outputs, attrs)
    assert spec.form is not None
    spec.form(builder)
    return Kernel(
        sample.op, params, outputs, tuple(builder.extents.items()), tuple(builder.statements), tuple(builder.scans)
    )


def reference(sample: Sample, arrays: list[Any]) -> tuple[Any, ...]:
    """The op's reference on arrays, as a tuple of results."""
    spec = lookup(sample.op)
    assert spec.reference is not None
    with np.errstate(all="ignore"):
        results = spec.reference(*arrays, **spec.complete_attrs(sample.attrs))
    return results if isinstance(results, tuple) else (results,)


TOLERANCE = {2: 2e-2, 4: 2e-5, 8: 1e-11}


def assert_close(got: Any, expected: Any) -> None:
    """Equal integers and bools, and floats within what rounding in another order may do."""
    assert got.shape == expected.shape
    assert got.dtype == expected.dtype
    if got.dtype.kind in "iub":
        np.testing.assert_array_equal(got, expected)
        return
    tolerance = TOLERANCE[got.dtype.itemsize] if got.dtype.itemsize > 1 else 0
    if got.dtype.itemsize == 2 and got.dtype.kind == "f":
        tolerance = 4e-3
    np.testing.assert_allclose(got.astype(np.float64), expected.astype(np.float64), rtol=tolerance, atol=tolerance)


def test_every_op_has_samples() -> None:
    assert {s.op for s in SAMPLES} == set(TABLE) - WITHOUT_SAMPLES


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_the_type_rule_gives_what_the_reference_gives(sample: Sample) -> None:
    spec = lookup(sample.op)
    types = spec.infer_types(sample.types, spec.complete_attrs(sample.attrs))
    results = reference(sample, sample.arrays())
    assert [(t.dtype.numpy, t.shape) for t in types] == [(np.asarray(r).dtype, np.asarray(r).shape) for r in results]


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_the_form_computes_what_the_reference_computes(sample: Sample) -> None:
    kernel = kernel_of(sample)
    verify_kernel(kernel)
    arrays = sample.arrays()
    found = run_kernel(kernel, {p.name: a for p, a in zip(kernel.params, arrays, strict=True)})
    for output, expected in zip(kernel.outputs, reference(sample, arrays), strict=True):
        assert_close(found[output.name], np.asarray(expected))


def test_an_unknown_op_is_answered_with_the_near_misses() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'softmax'"):
        lookup("sofmax")


def test_an_attribute_that_is_missing_or_unknown_is_named() -> None:
    with pytest.raises(IRTypeError, match="needs the attribute 'perm'"):
        lookup("transpose").complete_attrs({})
    with pytest.raises(UnknownNameError, match="attribute of op 'transpose' 'perms'; did you mean 'perm'"):
        lookup("transpose").complete_attrs({"perms": (1, 0)})
