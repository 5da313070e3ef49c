"""Which scheme each weight gets: one for all, or the first of several patterns that its name matches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase

from effcc.compression.install import Weight
from effcc.errors import EncodingError
from effcc.ir.encoding import Encoding
from effcc.ir.encodings import canonical
from effcc.ir.encodings.registry import declared
from effcc.ir.parser import encoding_of

Scheme = str | Encoding
Schemes = Scheme | Mapping[str, Scheme | None]
Read = Callable[[Scheme], Encoding | None]


def _full(scheme: Scheme) -> Encoding | None:
    made = canonical(encoding_of(scheme))
    return made if made.terms[0] else None


def schemes_of(given: Schemes, read: Read = _full) -> dict[str, Encoding | None]:
    """Schemes by pattern, in full; None stands for dense. A scheme alone is for every name.

    read: what makes a scheme of a notation; by default, of a chain.

    Raises IRSyntaxError, with a caret, where one does not parse; UnknownNameError and EncodingError as `canonical`.

        >>> {pattern: str(scheme) for pattern, scheme in schemes_of({"*.head": None, "*": "int8"}).items()}
        {'*.head': 'None', '*': 'int8(per="channel")'}
    """
    if not isinstance(given, Mapping):
        return {"*": read(given)}
    if not given:
        raise EncodingError("expected a scheme for at least one pattern, such as {'*': 'int8'}, got {}")
    return {str(pattern): None if scheme is None else read(scheme) for pattern, scheme in given.items()}


def require_kind(schemes: Mapping[str, Encoding | None], names: Sequence[str], verb: str, other: str) -> None:
    """Raise EncodingError unless each scheme is one of the names, alone or after a level that stores every element."""
    for wanted in schemes.values():
        if wanted is None:
            continue
        *before, last = wanted.terms[0]
        if last.name not in names or not all(declared(s.name).whole for s in before):
            raise EncodingError(
                f"effcc.{verb} takes one of {', '.join(names)}, got {wanted}; effcc.{other} takes the others"
            )


def assigned(weights: Sequence[Weight], schemes: Mapping[str, Encoding | None]) -> list[tuple[Weight, Encoding]]:
    """The weights with the scheme of the first pattern that a name of theirs matches; without those that stay dense.

    Raises EncodingError where a pattern is nobody's first, or names of one weight ask for different schemes.
    """
    found: list[tuple[Weight, Encoding]] = []
    used: set[str] = set()
    for weight in weights:
        patterns = [next((p for p in schemes if fnmatchcase(name, p)), None) for name in weight.modules]
        used.update(p for p in patterns if p is not None)
        asked = {schemes[p] if p is not None else None for p in patterns}
        if len(asked) > 1:
            names = ", ".join(weight.modules)
            wanted = " and ".join(str(a or "dense") for a in asked)
            raise EncodingError(f"{names} share one weight, which cannot be stored as {wanted} at once")
        (scheme,) = asked
        if scheme is not None:
            found.append((weight, scheme))
    unused = [p for p in schemes if p not in used]
    if unused:
        names = ", ".join(repr(w.name) for w in weights[:4])
        raise EncodingError(f"no chosen weight is left for the pattern {unused[0]!r}; names are such as {names}")
    return found
