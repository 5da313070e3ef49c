"""What the steps made of a graph, kept in the compile cache: the same graph is not put through them again.

A new process that compiles a model of yesterday's would spend seconds on fusing and tiling, and then find all kernels
compiled. So what came out of the steps lies beside the kernels (`programs/<key>`), under the digest of everything that
the steps read: the graph's text, where its lines come from, the machine, and effcc's own sources. It is a pickle; like
the libraries in that folder, it is read only where nobody else could have written it, and whole.

`EFFCC_REMEMBER=0` has every step run again. So do `EFFCC_VERIFY=1`, `EFFCC_DEBUG_INFO=1`, whoever wants to see what
steps give, and encodings that are declared outside of effcc: what they make of a weight is in no digest.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import hashlib
import importlib.metadata
import json
import os
import pickle
import sys
from collections.abc import Iterator
from typing import Any

from effcc.ir.dims import hints
from effcc.ir.encodings.registry import foreign
from effcc.ir.graph import Graph
from effcc.ir.printer import print_graph
from effcc.ir.verifier import verifying
from effcc.runtime.cache import CompileCache
from effcc.runtime.cache_keys import sources_digest, torch_version
from effcc.runtime.toolchain import debug_info
from effcc.target import Target

FORMAT = 1
"""Of what is kept; a change makes older files unreachable."""
_PICKLED = ("numpy", "sympy")
"""Packages whose objects are in the pickles."""


def remembering() -> bool:
    """Whether what steps made can be kept and taken again: the environment lets it, and all that they read is known."""
    wanted = os.environ.get("EFFCC_REMEMBER", "1") != "0" and not debug_info()
    return wanted and not verifying() and not foreign()


def key_of(graph: Graph, target: Target, **options: bool) -> str:
    """What the steps' result for a graph is known by, as 40 hexadecimal digits. options: those that steps read."""
    parts = {
        "format": FORMAT,
        "graph": print_graph(graph),
        "locations": _locations(graph),
        "target": repr(target),
        "options": options,
        "hints": dict(hints()),
        "effcc": sources_digest(),
        "packages": _packages(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:40]


def recall(key: str) -> Any:
    """What was kept under a key; None where nothing was."""
    content = CompileCache.default().programs.stored(key)
    if content is None:
        return None
    with without_collecting():
        return pickle.loads(content)


def remember(key: str, made: object) -> None:
    """Keep what steps made, where it can be: what holds a function of the user's own cannot."""
    try:
        content = pickle.dumps(made, protocol=5)
    except (pickle.PicklingError, AttributeError, TypeError, RecursionError):
        return
    CompileCache.default().programs.keep(key, content)


@contextlib.contextmanager
def without_collecting() -> Iterator[None]:
    """Without looking for cycles of garbage: the steps make many values and hardly any cycle, and a collection walks
    all that PyTorch has made, too."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _locations(graph: Graph) -> list[Any]:
    """The lines that nodes come from, which messages and reports name; the text does not say them."""
    return [[node.location, *map(_locations, node.regions)] for node in graph.nodes]


@functools.cache
def _packages() -> dict[str, str]:
    """The versions of what the pickled objects and the steps are made of."""
    versions = {name: importlib.metadata.version(name) for name in _PICKLED}
    return {"python": sys.version, "torch": torch_version(), **versions}
