"""The side conditions that rules may name.

A condition sees attributes, numbers and, for `%x`, the tensor's Value, with `Facts` about who computes it. It holds
only where that is proved: between symbolic sizes that might differ, nothing is equal.
"""

from __future__ import annotations

from collections.abc import Mapping

from effcc.passes.rules import attribute_conditions, tensor_conditions
from effcc.passes.rules.condition import Condition

CONDITIONS: Mapping[str, Condition] = {**tensor_conditions.CONDITIONS, **attribute_conditions.CONDITIONS}
