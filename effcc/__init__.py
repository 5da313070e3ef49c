"""effcc: a deep-learning compiler for efficient networks.

    model = effcc.compile(model)                         # or torch.compile(model, backend="effcc"), without this import
    effcc.quantize(model, "int8")                        # how weights are stored ...
    effcc.sparsify(model, "block(4,1)", density=0.2)     # ... and combinations
    effcc.compress(model, bytes=80e6, data=calls)        # per layer whatever serves a budget best
    effcc.from_gguf("model.gguf")                        # a model as others stored it; effcc.adopt(model) in place
    effcc.export(model, (x,), "model.effcc")             # ahead of time
    effcc.load("model.effcc")(x)
    effcc.explain(model)                                 # kernels, schedules and why, time against the roofline

Names are loaded when they are first used, so that `import effcc` takes no time and needs no PyTorch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from effcc.budget.compress import compress
    from effcc.caches.cache import StoredCache
    from effcc.caches.state import StoredState
    from effcc.checkpoints.adopt import adopt
    from effcc.checkpoints.folder import from_checkpoint
    from effcc.checkpoints.gguf_model import from_gguf
    from effcc.compression.calibrate import calibrate
    from effcc.compression.dead_channels import remove_dead_channels
    from effcc.compression.factorize import factorize
    from effcc.compression.quantize import quantize
    from effcc.compression.quantize_activations import quantize_activations
    from effcc.compression.save import load_into, save
    from effcc.compression.sparsify import sparsify
    from effcc.compression.training import quantize_aware
    from effcc.entry import compile, explain, export, invalidate, load, stats

__all__ = [
    "StoredCache", "StoredState",
    "adopt", "calibrate", "compile", "compress", "explain", "export", "factorize", "from_checkpoint", "from_gguf",
    "invalidate", "load", "load_into", "quantize", "quantize_activations", "quantize_aware",
    "remove_dead_channels", "save", "sparsify", "stats",
]  # fmt: skip

_HOMES = {
    "StoredCache": "effcc.caches.cache",
    "StoredState": "effcc.caches.state",
    "adopt": "effcc.checkpoints.adopt",
    "calibrate": "effcc.compression.calibrate",
    "compile": "effcc.entry",
    "compress": "effcc.budget.compress",
    "explain": "effcc.entry",
    "export": "effcc.entry",
    "factorize": "effcc.compression.factorize",
    "from_checkpoint": "effcc.checkpoints.folder",
    "from_gguf": "effcc.checkpoints.gguf_model",
    "invalidate": "effcc.entry",
    "load": "effcc.entry",
    "load_into": "effcc.compression.save",
    "quantize": "effcc.compression.quantize",
    "quantize_activations": "effcc.compression.quantize_activations",
    "quantize_aware": "effcc.compression.training",
    "remove_dead_channels": "effcc.compression.dead_channels",
    "save": "effcc.compression.save",
    "sparsify": "effcc.compression.sparsify",
    "stats": "effcc.entry",
}


def __getattr__(name: str) -> Any:
    """Load a public name from the module it lives in."""
    if name not in _HOMES:
        raise AttributeError(f"module 'effcc' has no attribute {name!r}; it has {', '.join(sorted(_HOMES))}")
    found = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
