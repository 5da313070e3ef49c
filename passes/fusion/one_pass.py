"""Clusters of one pass over an axis whose length only a call knows: attention over a run-time number of keys.

    S[m,n] = sum(k: Q[m,k] * K[n,k]);  M[m] = max(n: S[m,n]);  P[m,n] = exp(S[m,n] - M[m]);  ...    with n=s0

Three passes over n would keep a row of S, and there is no buffer whose size is not known; so what reads it twice is
another kernel, and all of S goes through memory. One pass (`effcc.passes.fusion.online`) keeps a tile of it. Whether
there is one is seen of a whole kernel only. So statements are put together as if rows could be kept, and those stay
together whose kernel takes one pass.
"""

from __future__ import annotations

from effcc.ir.dependences import online_axis, shared_axes
from effcc.ir.kernel import Kernel
from effcc.passes.fusion.cascade import Cascade, Defined
from effcc.passes.fusion.cluster import Cluster, cluster
from effcc.passes.fusion.codes import sum_codes
from effcc.passes.fusion.online import make_online
from effcc.passes.fusion.program import Part, cutter
from effcc.passes.fusion.split import split_axes
from effcc.target import Target


def clusters(part: Part, target: Target) -> list[Cluster]:
    """The clusters of a part, with those that take one pass over what has a run-time length."""
    walked = _one_pass(part, target) if _has_unknown_maximum(part.cascade) else frozenset()
    return cluster(part.cascade, target, part.weights, walked)


def _has_unknown_maximum(cascade: Cascade) -> bool:
    """Whether a statement takes the maximum along an axis of run-time length."""
    reductions = (i.statement.reduction for i in cascade.items if isinstance(i, Defined))
    maxima = (r for r in reductions if r is not None and r.operator == "max")
    return any(not isinstance(cascade.extents[a], int) for r in maxima for a in r.axes)


def _one_pass(part: Part, target: Target) -> frozenset[str]:
    """The targets of statements that are one pass together."""
    everything = frozenset(i.target for i in part.cascade.items if isinstance(i, Defined))
    trial = cluster(part.cascade, target, part.weights, everything)
    cut_out = cutter(part, trial)
    found: set[str] = set()
    for one in trial:
        if any(i.statement.reduction is not None and i.statement.reduction.operator == "max" for i in one.items):
            found |= one.targets if _takes_one_pass(cut_out(one).kernel) else set()
    return frozenset(found)


def _takes_one_pass(kernel: Kernel) -> bool:
    """Whether a kernel takes one pass over the one axis of run-time length that its tasks do not share."""
    online = make_online(sum_codes(split_axes(kernel)))
    axis, shared = online_axis(online), shared_axes(online)
    inner = {a for s in online.statements for a in s.all_axes} - {*shared, axis}
    return axis is not None and all(isinstance(online.extents[a], int) for a in inner)


__all__ = ["clusters"]
