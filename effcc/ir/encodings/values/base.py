"""What every kind of values answers, and facts of dtypes that they share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from effcc.errors import EncodingError
from effcc.ir.dtypes import DType, bf16, f16, f32, f64
from effcc.ir.encodings.levels import Levels
from effcc.ir.encodings.values.parts import Parts
from effcc.ir.expr import Expr

if TYPE_CHECKING:
    from effcc.ir.encodings.values.codes import Integers

Array = Any
LoadComponent = Callable[[int, Sequence[Expr]], Expr]
Nearest = Callable[[Array, int], Array]
"""The numbers that elements would be decoded as: of columns of `levels.rows`, from the given one on."""
NamedArray = tuple[str, DType, tuple[int, ...]]
"""A component: its name, dtype and shape."""

SMALLEST = {f64: 2.0**-126, f32: 2.0**-126, bf16: 2.0**-126, f16: 2.0**-24}
"""The smallest positive number that a scale of each dtype may be; of f16 a subnormal one, for weights are small."""
EPSILON = {f64: 2.0**-23, f32: 2.0**-23, bf16: 2.0**-7, f16: 2.0**-10}
"""How far the next number is from 1 in each dtype; of f64 in f32, in which parameters are fitted."""


class Term(Protocol):
    """What a term of a sum, or a factor of a product, answers: a `Storage` does, and so does a `Product`."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def named(self) -> tuple[NamedArray, ...]:
        """The component arrays: name, dtype and shape."""

    @property
    def trainable(self) -> tuple[str, ...]: ...

    def encode(self, dense: Array) -> list[Array]: ...

    def decode(self, arrays: Sequence[Array]) -> Array: ...

    def error_bound(self, arrays: Sequence[Array]) -> Array: ...

    def gradients(self, xp: Any, arrays: Sequence[Array], upstream: Array) -> list[Array | None]: ...


@dataclass(frozen=True)
class IntegerForm:
    """(q - z) * s, or q * s and perhaps a minimum: the integers, the dtype of floating scales (None: the weight's),
    and whether there are zero points."""

    code: Integers
    scale_dtype: DType | None
    zero: bool


class Values(ABC):
    """How the stored elements of a weight of `dtype` become numbers; the component arrays follow the levels' ones.

    Encoding takes two steps, so that methods may come between them: `fit` chooses the parameters (scales, zero points,
    tables), and `round` the codes, given parameters. The arrays are codes first, then parameters.
    """

    @abstractmethod
    def components(self, levels: Levels, dtype: DType) -> tuple[NamedArray, ...]:
        """The arrays: name, dtype and shape."""

    @abstractmethod
    def fit(self, levels: Levels, stored: Array, importance: Array | None = None) -> list[Array]:
        """The parameters for given stored elements.

        importance: of each stored element (or None: equal), in rows as `levels.rows` gives them; parameters then have
            the smallest weighted squared error that the scheme's search finds.
        """

    @abstractmethod
    def round(self, levels: Levels, stored: Array, parameters: Sequence[Array]) -> list[Array]:
        """The codes of stored elements: of each the one whose number is nearest."""

    @abstractmethod
    def rounding(self, levels: Levels, parameters: Sequence[Array]) -> Nearest:
        """Rounds columns to what they would be decoded as, given parameters.

        What methods call that round a column at a time: once all columns are such numbers, `round` keeps them.
        """

    @property
    def integer_form(self) -> IntegerForm | None:
        """What elements are, where they are integers with floating scales."""
        return None

    @property
    def quicker(self) -> str:
        """What holds the same numbers, bit for bit, and is read by widening it: "own", as they are stored; "bf16";
        "f16", before scales of channels; "" where there is none."""
        return ""

    @property
    def is_light(self) -> bool:
        """Whether elements are light bytes times scales (`effcc.ir.light`)."""
        return False

    def encode(self, levels: Levels, stored: Array) -> list[Array]:
        """The arrays for given stored elements: parameters are fitted, then elements rounded."""
        parameters = self.fit(levels, stored)
        return [*self.round(levels, stored, parameters), *parameters]

    def assembled(self, levels: Levels, parts: Parts) -> list[Array]:
        """The arrays for codes, scales and minimums that others found: the same numbers, none computed anew.

        Raises EncodingError where a code does not fit, or a part is missing or one too many.
        """
        raise EncodingError("elements stored as they are have no codes")

    def kept(
        self, dense: Levels, arrays: Sequence[Array], levels: Levels, coordinates: Sequence[Array], dtype: DType
    ) -> list[Array]:
        """The arrays of a dense weight at the elements that `levels` keeps of it."""
        return self.encode(levels, levels.compress(self.decode(dense, arrays, dtype), coordinates))

    @abstractmethod
    def decode(self, levels: Levels, arrays: Sequence[Array], dtype: DType) -> Array:
        """The stored elements as numbers."""

    @abstractmethod
    def element(self, levels: Levels, load: LoadComponent, place: Sequence[Expr], channel: Expr, dtype: DType) -> Expr:
        """One stored element as an expression; `load(i, index)` is an element of the i-th array."""

    @abstractmethod
    def error_bound(self, levels: Levels, arrays: Sequence[Array]) -> Array:
        """How far a decoded element may be from the one that was encoded, for each stored one in `levels.rows`'s order.

        It may be one number for a whole row, [N, 1].
        """

    @abstractmethod
    def gradients(self, xp: Any, levels: Levels, arrays: Sequence[Array], upstream: Array) -> list[Array | None]:
        """The gradient of each array, given that of the stored elements; None where none passes (codes).

        xp: the library (numpy or torch) whose arrays they are; what is done with them can be traced.
        """

    @property
    def shares_groups(self) -> bool:
        """Whether groups of a row's stored elements share parameters."""
        return False

    @property
    def integers(self) -> tuple[int, int] | None:
        """The least and the largest integer that elements are before they are scaled; None where they are not."""
        return None

    @property
    def has_minimum(self) -> bool:
        """Whether a stored minimum is added to what is scaled."""
        return False

    def blocks(self, stored: Array) -> Array | None:
        """Stored rows by the blocks that share a scale, a block a row of the last axis; None where none do."""
        return None

    def group_size(self, length: int) -> int:
        """How many neighbours of a row of so many elements share their parameters."""
        return length

    def integer_parts(
        self, levels: Levels, load: LoadComponent, place: Sequence[Expr], channel: Expr, dtype: DType
    ) -> tuple[Expr, Expr, Expr | None]:
        """Of `integers`: a stored element's integer, its scale and its minimum, in what they are computed in."""
        raise EncodingError("these elements are no integers with scales")

    def separated(self, levels: Levels, arrays: Sequence[Array]) -> tuple[Array, Array, Array | None]:
        """Of `integers`: those, as rows, and the arrays of scales and minimums."""
        raise EncodingError("these elements are no integers with scales")

    @property
    def trained(self) -> tuple[str, ...]:
        """The components that an optimizer may change."""
        return ("values",) if self.is_exact else ()

    @property
    def terms(self) -> tuple[Term, ...]:
        """What is added up, where the weight is a sum; else none."""
        return ()

    @property
    @abstractmethod
    def is_exact(self) -> bool:
        """Whether elements are stored as they are, so that they can be trained."""
