"""How the stored form of a weight is found: each method is a file, and a line of this table.

Some choose how the input is changed before the product (`transform`), some how elements are rounded (`solve`), and
they compose: `awq+gptq` scales columns by what they are multiplied with, then rounds with the errors passed on.
"""

from __future__ import annotations

from effcc.compression.methods.awq import awq
from effcc.compression.methods.gptq import gptq
from effcc.compression.methods.hadamard import hadamard
from effcc.compression.methods.nearest import nearest
from effcc.compression.methods.problem import Method
from effcc.compression.methods.quantease import quantease
from effcc.compression.methods.smoothquant import smoothquant
from effcc.errors import UnknownNameError

METHODS = {
    "nearest": Method("nearest", needs_data=False, solve=nearest),
    "gptq": Method("gptq", needs_data=True, solve=gptq),
    "quantease": Method("quantease", needs_data=True, solve=quantease),
    "awq": Method("awq", needs_data=True, transform=awq),
    "smoothquant": Method("smoothquant", needs_data=True, transform=smoothquant),
    "hadamard": Method("hadamard", needs_data=False, transform=hadamard),
}


def methods_of(text: str) -> tuple[Method, ...]:
    """The methods that `text` names: one, or transforms and how to round after them, joined by `+`.

    Raises UnknownNameError for one that does not exist, EncodingError for an order that makes no sense.

        >>> [m.name for m in methods_of("hadamard+gptq")]
        ['hadamard', 'gptq']
    """
    found = []
    for name in str(text).split("+"):
        if name.strip() not in METHODS:
            raise UnknownNameError("method", name.strip(), METHODS)
        found.append(METHODS[name.strip()])
    return tuple(found)
