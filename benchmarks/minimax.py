"""Fits the polynomials of `runtime/include/effcc`: prints float32 coefficients and the error left by the fit.

    python -m benchmarks.minimax            # all of them
    python -m benchmarks.minimax log tanh   # these

A polynomial P is chosen so that the largest weighted error over an interval is as small as its degree allows
(Lawson's iteration: least squares whose weights move to where the error is largest). Its coefficients are then rounded
to float32 one by one, lowest power first, each time refitting those that are still free, so that rounding a
coefficient is paid for by the others. `benchmarks/ulp.py` measures what the compiled functions make of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

import mpmath
import numpy as np

mpmath.mp.prec = 160

Real = Callable[[mpmath.mpf], mpmath.mpf]


@dataclass(frozen=True)
class Fit:
    """One polynomial: `target(x) ~ sum(c[k] * variable(x)**k)`, its error multiplied by `weight(x)`."""

    name: str
    target: Real
    low: mpmath.mpf
    high: mpmath.mpf
    degree: int
    weight: Real
    variable: Real = lambda x: x
    fixed: tuple[float, ...] = ()


def _weighted(fit: Fit, points: int = 1500) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Chebyshev-spaced samples of a fit: variable, target, weight."""
    center, radius = (fit.low + fit.high) / 2, (fit.high - fit.low) / 2
    nodes = [center + radius * mpmath.cos(mpmath.pi * (k + 0.5) / points) for k in range(points)]
    columns = [(fit.variable(x), fit.target(x), fit.weight(x)) for x in nodes]
    u, y, w = (np.array([float(c[i]) for c in columns]) for i in range(3))
    return u, y, np.abs(w)


def _lawson(u: np.ndarray, y: np.ndarray, w: np.ndarray, powers: list[int]) -> np.ndarray:
    """Coefficients of `powers` of `u` that make the largest `w * |error|` as small as can be."""
    scale = float(np.max(np.abs(u)))
    basis = np.stack([(u / scale) ** p for p in powers], axis=1)
    lawson = np.ones_like(y)
    best, best_error = None, np.inf
    for _ in range(300):
        rows = np.sqrt(lawson) * w
        solution, *_ = np.linalg.lstsq(basis * rows[:, None], y * rows, rcond=None)
        error = np.abs(basis @ solution - y) * w
        if error.max() < best_error:
            best, best_error = solution, float(error.max())
        if error.max() == 0:
            break
        lawson = lawson * error / error.max() + 1e-30
        lawson /= lawson.mean()
    assert best is not None
    return best / np.array([scale**p for p in powers])


def solve(fit: Fit) -> tuple[list[float], float]:
    """Float32 coefficients of a fit, lowest power first, and its largest weighted error."""
    u, y, w = _weighted(fit)
    coefficients = [float(np.float32(c)) for c in fit.fixed]
    rest = y - sum(c * u**k for k, c in enumerate(coefficients))
    for k in range(len(coefficients), fit.degree + 1):
        free = _lawson(u, rest, w, list(range(k, fit.degree + 1)))
        coefficients.append(float(np.float32(free[0])))
        rest = rest - coefficients[-1] * u**k
    return coefficients, float(np.max(np.abs(rest) * w))


def _over(f: Real) -> Real:
    """The weight that makes an error relative to f."""
    return lambda x: 1 / f(x)


def _away_from_zero(f: Real, at_zero: mpmath.mpf) -> Real:
    """f with its removable singularity at 0 filled in."""
    return lambda x: at_zero if abs(x) < mpmath.mpf(2) ** -40 else f(x)


_ZERO, _ONE, _LN2 = mpmath.mpf(0), mpmath.mpf(1), mpmath.log(2)

FITS = (
    Fit(
        "exp: (e^r - 1 - r) / r^2",
        _away_from_zero(lambda r: (mpmath.expm1(r) - r) / r**2, _ONE / 2),
        -_LN2 / 2,
        _LN2 / 2,
        4,
        lambda r: r**2 / mpmath.exp(r),
    ),
    Fit(
        "expm1: (e^r - 1 - r) / r^2",
        _away_from_zero(lambda r: (mpmath.expm1(r) - r) / r**2, _ONE / 2),
        -_LN2 / 2,
        _LN2 / 2,
        5,
        _away_from_zero(lambda r: r**2 / mpmath.expm1(r), _ZERO),
        fixed=(0.5,),
    ),
    Fit(
        "exp2: (2^r - 1) / r",
        _away_from_zero(lambda r: (mpmath.mpf(2) ** r - 1) / r, mpmath.log(2)),
        -_ONE / 2,
        _ONE / 2,
        6,
        lambda r: r / mpmath.mpf(2) ** r,
    ),
    Fit(
        "log: (log(1 + f) - f + f^2/2) / f^3",
        _away_from_zero(lambda f: (mpmath.log1p(f) - f + f**2 / 2) / f**3, _ONE / 3),
        mpmath.sqrt(0.5) - 1,
        mpmath.sqrt(2) - 1,
        8,
        _away_from_zero(lambda f: f**3 / mpmath.log1p(f), _ZERO),
    ),
    Fit(
        "tanh: (tanh(x) - x) / x^3",
        _away_from_zero(lambda x: (mpmath.tanh(x) - x) / x**3, -_ONE / 3),
        _ZERO,
        _ONE * 5 / 8,
        5,
        _away_from_zero(lambda x: x**3 / mpmath.tanh(x), _ZERO),
        variable=lambda x: x * x,
    ),
    Fit(
        "erf: erf(x) / x - 1",
        _away_from_zero(lambda x: mpmath.erf(x) / x - 1, 2 / mpmath.sqrt(mpmath.pi) - 1),
        _ZERO,
        _ONE * 15 / 16,
        6,
        _away_from_zero(lambda x: x / mpmath.erf(x), mpmath.sqrt(mpmath.pi) / 2),
        variable=lambda x: x * x,
    ),
    Fit(
        "erf tail: log(erfc(x)) / x, x in [0.9375, 4]",
        lambda x: mpmath.log(mpmath.erfc(x)) / x,
        _ONE * 15 / 16,
        _ONE * 4,
        8,
        lambda x: x * mpmath.erfc(x) / mpmath.erf(x),
    ),
    Fit(
        "1 + erf: log(erfc(x)) / x, x in [0, 5], its error beside the root of erfc",
        _away_from_zero(lambda x: mpmath.log(mpmath.erfc(x)) / x, -2 / mpmath.sqrt(mpmath.pi)),
        _ZERO,
        mpmath.mpf(5),
        9,
        lambda x: x * mpmath.sqrt(mpmath.erfc(x)),
    ),
    Fit(
        "erfc: (1 + 2 x) e^(x^2) erfc(x) in t = (x - 2) / (x + 2)",
        lambda x: (1 + 2 * x) * mpmath.exp(x * x) * mpmath.erfc(x),
        _ZERO,
        mpmath.mpf("10.1"),
        10,
        lambda x: _ONE,
        variable=lambda x: (x - 2) / (x + 2),
    ),
    Fit(
        "sin: (sin(x) - x) / x^3",
        _away_from_zero(lambda x: (mpmath.sin(x) - x) / x**3, -_ONE / 6),
        _ZERO,
        mpmath.pi / 4,
        3,
        _away_from_zero(lambda x: x**3 / mpmath.sin(x), _ZERO),
        variable=lambda x: x * x,
    ),
    Fit(
        "cos: (cos(x) - 1 + x^2/2) / x^4",
        _away_from_zero(lambda x: (mpmath.cos(x) - 1 + x**2 / 2) / x**4, _ONE / 24),
        _ZERO,
        mpmath.pi / 4,
        3,
        lambda x: x**4 / mpmath.cos(x),
        variable=lambda x: x * x,
    ),
    Fit(
        "tan: (tan(x) - x) / x^3",
        _away_from_zero(lambda x: (mpmath.tan(x) - x) / x**3, _ONE / 3),
        _ZERO,
        mpmath.pi / 4,
        7,
        _away_from_zero(lambda x: x**3 / mpmath.tan(x), _ZERO),
        variable=lambda x: x * x,
    ),
    Fit(
        "atan: (atan(x) - x) / x^3",
        _away_from_zero(lambda x: (mpmath.atan(x) - x) / x**3, -_ONE / 3),
        _ZERO,
        mpmath.tan(mpmath.pi / 8),
        4,
        _away_from_zero(lambda x: x**3 / mpmath.atan(x), _ZERO),
        variable=lambda x: x * x,
    ),
    Fit(
        "asin: (asin(x) - x) / x^3",
        _away_from_zero(lambda x: (mpmath.asin(x) - x) / x**3, _ONE / 6),
        _ZERO,
        _ONE / 2,
        5,
        _away_from_zero(lambda x: x**3 / mpmath.asin(x), _ZERO),
        variable=lambda x: x * x,
    ),
)


def main(names: list[str]) -> None:
    """Prints every fit whose name starts with one of `names`; all of them without any."""
    for fit in FITS:
        if names and not any(fit.name.startswith(name) for name in names):
            continue
        coefficients, error = solve(fit)
        print(f"{fit.name} on [{float(fit.low):.6g}, {float(fit.high):.6g}]: 2^{np.log2(error):.1f}")
        print("    " + ", ".join(f"{c:.9g}f" for c in coefficients))


if __name__ == "__main__":
    main(sys.argv[1:])
