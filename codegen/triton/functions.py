# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False
"""Functions that Triton's language lacks, in Triton: emitted modules carry a copy of those that they call.

No device library is needed, so that all of it runs under Triton's interpreter and compiles for every GPU. Arguments are
f32 or f64 blocks (half types are computed in f32), unless said otherwise.
"""

import triton
import triton.language as tl


@triton.jit
def larger(a, b):
    """max, NaN where either is NaN."""
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def smaller(a, b):
    """min, NaN where either is NaN."""
    return tl.minimum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def larger_integer(a, b):
    return tl.maximum(a, b)


@triton.jit
def smaller_integer(a, b):
    return tl.minimum(a, b)


@triton.jit
def times(a, b):
    return a * b


@triton.jit
def either(a, b):
    return a | b


@triton.jit
def all_of(a, b):
    return a & b


@triton.jit
def sign(x):
    """-1, 0 or 1; 0 for NaN, as torch.sign has it for the C++ backend too."""
    return tl.where(x > 0, 1.0, tl.where(x < 0, -1.0, 0.0)).to(x.dtype)


@triton.jit
def sign_integer(x):
    return tl.where(x > 0, 1, tl.where(x < 0, -1, 0)).to(x.dtype)


@triton.jit
def invert(x):
    """All bits the other way; Triton's interpreter knows no ~x of unsigned integers."""
    return x ^ (x * 0 - 1)


@triton.jit
def trunc(x):
    return tl.where(x < 0, tl.ceil(x), tl.floor(x))


@triton.jit
def round_to_even(x):
    """The nearest integer, halves to even."""
    low = tl.floor(x)
    rest = x - low
    odd = low - 2.0 * tl.floor(low * 0.5)
    up = (rest > 0.5) | ((rest == 0.5) & (odd == 1.0))
    return copysign(tl.where(up, low + 1.0, low), x)


@triton.jit
def is_negative(x):
    """Whether the sign bit is set, which NaN and zero have as well."""
    if x.dtype == tl.float64:
        negative = x.to(tl.int64, bitcast=True) < 0
    elif x.dtype == tl.float32:
        negative = x.to(tl.int32, bitcast=True) < 0
    else:
        negative = x.to(tl.int16, bitcast=True) < 0
    return negative


@triton.jit
def bits(x):
    """A float's bits as an integer, or an integer's as a float."""
    if x.dtype == tl.float32:
        read = x.to(tl.int32, bitcast=True)
    elif x.dtype == tl.float64:
        read = x.to(tl.int64, bitcast=True)
    elif x.dtype == tl.int32:
        read = x.to(tl.float32, bitcast=True)
    else:
        read = x.to(tl.float64, bitcast=True)
    return read


@triton.jit
def copysign(x, y):
    size = tl.abs(x)
    return tl.where(is_negative(y), -size, size)


@triton.jit
def sigmoid(x):
    """1 / (1 + exp(-x)), without overflow: exp runs over negative arguments only."""
    e = tl.exp(-tl.abs(x))
    return tl.where(x < 0, e, 1.0) / (1.0 + e)


@triton.jit
def expm1(x):
    """exp(x) - 1: Kahan's (u - 1) x / log(u) with u = exp(x) near 0."""
    u = tl.exp(x)
    near = tl.where(u == 1.0, x, (u - 1.0) * x / tl.log(tl.where(u == 1.0, 2.0, u)))
    return tl.where(tl.abs(x) < 0.5, near, u - 1.0)


@triton.jit
def log1p(x):
    """log(1 + x): Kahan's log(u) x / (u - 1) with u = 1 + x near 0."""
    u = 1.0 + x
    near = tl.where(u == 1.0, x, tl.log(u) * x / tl.where(u == 1.0, 1.0, u - 1.0))
    return tl.where(tl.abs(x) < 0.5, near, tl.log(u))


@triton.jit
def log10(x):
    return tl.log2(x) * 0.30102999566398120


@triton.jit
def tanh(x):
    e = expm1(-2.0 * tl.abs(x))
    return copysign(-e / (e + 2.0), x)


@triton.jit
def sinh(x):
    """(e + e / (e + 1)) / 2 with e = expm1(|x|); exp(|x| - log 2) where e would overflow."""
    size = tl.abs(x)
    small = tl.where(size < 80.0, size, 0.0)
    e = expm1(small)
    half = tl.exp(0.5 * size)
    return copysign(tl.where(size < 80.0, 0.5 * (e + e / (e + 1.0)), 0.5 * half * half), x)


@triton.jit
def cosh(x):
    size = tl.abs(x)
    half = tl.exp(0.5 * size)
    e = tl.exp(-size)
    return tl.where(size < 80.0, 0.5 * (half * half + e), 0.5 * half * half)


@triton.jit
def asinh(x):
    """log1p(|x| + x^2 / (1 + sqrt(x^2 + 1))); log(|x|) + log 2 where the square would overflow."""
    size = tl.abs(x)
    small = tl.where(size < 1e9, size, 1.0)
    square = small * small
    near = log1p(small + square / (1.0 + tl.sqrt(square + 1.0)))
    return copysign(tl.where(size < 1e9, near, tl.log(size) + 0.69314718055994531), x)


@triton.jit
def acosh(x):
    """log1p(t + sqrt(2 t + t^2)) with t = x - 1."""
    t = tl.where(x < 1e9, x - 1.0, 0.0)
    near = log1p(t + tl.sqrt(2.0 * t + t * t))
    return tl.where(x < 1e9, near, tl.log(x) + 0.69314718055994531)


@triton.jit
def atanh(x):
    """log1p(2 |x| / (1 - |x|)) / 2."""
    size = tl.abs(x)
    return copysign(0.5 * log1p(2.0 * size / (1.0 - size)), x)


@triton.jit
def tan(x):
    return tl.sin(x) / tl.cos(x)


@triton.jit
def atan(x):
    """Argument halved twice by atan(x) = 2 atan(x / (1 + sqrt(1 + x^2))), then the series to x^17."""
    size = tl.abs(x)
    large = size > 1.0
    t = tl.where(large, 1.0 / tl.where(size == 0.0, 1.0, size), size)
    t = t / (1.0 + tl.sqrt(1.0 + t * t))
    t = t / (1.0 + tl.sqrt(1.0 + t * t))
    s = t * t
    p = 1.0 / 13.0 - s * (1.0 / 15.0 - s * (1.0 / 17.0 - s * (1.0 / 19.0 - s / 21.0)))
    p = 1.0 / 5.0 - s * (1.0 / 7.0 - s * (1.0 / 9.0 - s * (1.0 / 11.0 - s * p)))
    angle = 4.0 * t * (1.0 - s * (1.0 / 3.0 - s * p))
    return copysign(tl.where(large, 1.5707963267948966 - angle, angle), x)


@triton.jit
def asin(x):
    """2 atan(x / (1 + sqrt((1 - x) (1 + x))))."""
    return 2.0 * atan(x / (1.0 + tl.sqrt((1.0 - x) * (1.0 + x))))


@triton.jit
def acos(x):
    """2 atan(sqrt(1 - x) / sqrt(1 + x))."""
    below = tl.sqrt(tl.where(x == -1.0, 1.0, 1.0 + x))
    return tl.where(x == -1.0, 3.1415926535897931, 2.0 * atan(tl.sqrt(1.0 - x) / below))


@triton.jit
def atan2(y, x):
    both_infinite = (tl.abs(x) == float("inf")) & (tl.abs(y) == float("inf"))
    flat = (x == 0.0) & (y == 0.0)
    ratio = tl.abs(y) / tl.where(flat, 1.0, tl.abs(x))
    angle = tl.where(both_infinite, 0.78539816339744831, atan(ratio))
    return copysign(tl.where(is_negative(x), 3.1415926535897931 - angle, angle), y)


@triton.jit
def erfc(x):
    """1 - erf(x) below 0.5; above, exp(-x^2) times a rational function (W. J. Cody, Math. Comp. 23, 1969)."""
    size = tl.abs(x)
    y = tl.where(size < 0.5, 0.5, size)
    near = tl.minimum(y, 4.0)
    top = 2.15311535474403846e-8 * near + 5.64188496988670089e-1
    top = top * near + 8.88314979438837594
    top = top * near + 6.61191906371416295e1
    top = top * near + 2.98635138197400131e2
    top = top * near + 8.81952221241769090e2
    top = top * near + 1.71204761263407058e3
    top = top * near + 2.05107837782607147e3
    top = top * near + 1.23033935479799725e3
    bottom = near + 1.57449261107098347e1
    bottom = bottom * near + 1.17693950891312499e2
    bottom = bottom * near + 5.37181101862009858e2
    bottom = bottom * near + 1.62138957456669019e3
    bottom = bottom * near + 3.29079923573345963e3
    bottom = bottom * near + 4.36261909014324716e3
    bottom = bottom * near + 3.43936767414372164e3
    bottom = bottom * near + 1.23033935480374942e3
    far = tl.maximum(y, 4.0)
    z = 1.0 / (far * far)
    p = 1.63153871373020978e-2 * z + 3.05326634961232344e-1
    p = p * z + 3.60344899949804439e-1
    p = p * z + 1.25781726111229246e-1
    p = p * z + 1.60837851487422766e-2
    p = p * z + 6.58749161529837803e-4
    q = z + 2.56852019228982242
    q = q * z + 1.87295284992346725
    q = q * z + 5.27905102951428412e-1
    q = q * z + 6.05183413124413191e-2
    q = q * z + 2.33520497626869185e-3
    tail = (0.56418958354775629 - z * p / q) / far
    scale = tl.where(y < 4.0, top / bottom, tail)
    high = tl.floor(y * 16.0) * 0.0625
    low = (y - high) * (y + high)
    value = tl.exp(-high * high) * tl.exp(-low) * scale
    value = tl.where(y == float("inf"), 0.0, value)
    large = tl.where(x < 0.0, 2.0 - value, value)
    return tl.where(size < 0.5, 1.0 - tl.erf(x), tl.where(x != x, x, large))


@triton.jit
def lgamma(x):
    """log |gamma(x)| in f64: Stirling's series after shifting x up to 8, reflected below 0.5.

    Near its zeros 1 and 2 the error is small absolutely, not relatively.
    """
    wide = x.to(tl.float64)
    reflected = wide < 0.5
    y = tl.where(reflected, 1.0 - wide, wide)
    shift = 0.0 * y + 1.0
    z = y
    for _ in range(8):
        small = z < 8.0
        shift = tl.where(small, shift * z, shift)
        z = tl.where(small, z + 1.0, z)
    r = 1.0 / (z * z)
    series = 1.0 / 1680.0 - r * (1.0 / 1188.0 - r * (691.0 / 360360.0 - r * (1.0 / 156.0)))
    series = (1.0 / 12.0 - r * (1.0 / 360.0 - r * (1.0 / 1260.0 - r * series))) / z
    value = (z - 0.5) * tl.log(z) - z + 0.91893853320467274 + series - tl.log(shift)
    value = tl.where((y == 1.0) | (y == 2.0), 0.0, tl.where(y == float("inf"), float("inf"), value))
    turn = tl.abs(wide - tl.floor(wide + 0.5))
    sine = tl.sin(3.1415926535897931 * turn)
    other = 1.1447298858494002 - tl.log(tl.where(turn == 0.0, 1.0, sine)) - value
    other = tl.where(turn == 0.0, float("inf"), other)
    result = tl.where(reflected, other, value)
    return tl.where(tl.abs(wide) == float("inf"), float("inf"), result).to(x.dtype)


@triton.jit
def fmod(x, y):
    """x - y trunc(x / y), exactly, with the sign of x: the language's own remainder of floats."""
    return tl.where(tl.abs(y) == float("inf"), tl.where(tl.abs(x) == float("inf"), x - x, x), x % y)


@triton.jit
def remainder(x, y):
    """The remainder with the sign of y."""
    r = fmod(x, y)
    return tl.where((r != 0) & ((r < 0) != (y < 0)), r + y, r)


@triton.jit
def floor_divide(x, y):
    """floor(x / y) by way of the exact remainder, as NumPy and torch do."""
    r = remainder(x, y)
    q = (x - r) / y
    near = tl.floor(q)
    near = tl.where(q - near > 0.5, near + 1.0, near)
    return tl.where(y == 0.0, x / y, near)


@triton.jit
def remainder_integer(x, y):
    """The remainder with the sign of y."""
    r = x % y
    return tl.where((r != 0) & ((r < 0) != (y < 0)), r + y, r)


@triton.jit
def floor_divide_integer(x, y):
    q = x // y
    return tl.where((x % y != 0) & ((x < 0) != (y < 0)), q - 1, q)


@triton.jit
def shift_left(x, y):
    """Counts at or beyond the width, or below 0, shift everything out."""
    most: tl.constexpr = x.dtype.primitive_bitwidth - 1
    inside = (y >= 0) & (y <= most)
    return tl.where(inside, x << tl.where(inside, y, most).to(x.dtype), 0).to(x.dtype)


@triton.jit
def shift_right(x, y):
    """Counts at or beyond the width, or below 0, leave the sign alone."""
    most: tl.constexpr = x.dtype.primitive_bitwidth - 1
    inside = (y >= 0) & (y <= most)
    shifted = x >> tl.where(inside, y, most).to(x.dtype)
    return tl.where(inside | (x < 0), shifted, 0).to(x.dtype)


@triton.jit
def power(x, y):
    """|x|^y by exp2(y log2 |x|), in f64; the sign of x where y is an odd integer, NaN where y is none."""
    size = tl.abs(x).to(tl.float64)
    exponent = y.to(tl.float64)
    whole = tl.floor(exponent) == exponent
    odd = whole & (exponent - 2.0 * tl.floor(exponent * 0.5) == 1.0)
    value = tl.exp2(exponent * tl.log2(size))
    value = tl.where((exponent == 0.0) | (x == 1.0), 1.0, value)
    value = tl.where((size == 1.0) & (tl.abs(exponent) == float("inf")), 1.0, value)
    value = tl.where(is_negative(x) & odd, -value, value)
    value = tl.where((x < 0.0) & (size != float("inf")) & (whole == 0), float("nan"), value)
    return value.to(x.dtype)


@triton.jit
def power_integer(x, y):
    """x^y by squaring; for y < 0 what is left of 1 / x^-y: 0 but for x = 1 and x = -1."""
    result = x * 0 + 1
    factor = x
    left = tl.where(y < 0, y & 1, y)
    for _ in range(y.dtype.primitive_bitwidth):
        result = tl.where(left % 2 == 1, result * factor, result)
        factor = factor * factor
        left = left // 2
    return tl.where((y < 0) & (x != 1) & (x + 1 != 0), 0, result).to(x.dtype)
