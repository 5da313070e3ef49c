"""`StoredCache`: what transformers' decoders keep of the tokens that they have seen, stored as codes."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

from effcc.caches.rows import row_codes
from effcc.caches.state import StoredState
from effcc.compression.schemes import Schemes, schemes_of
from effcc.errors import EncodingError, InputError, UnsupportedError
from effcc.ir.encoding import Encoding
from effcc.ir.parser import encoding_of

try:
    from transformers.cache_utils import Cache, StaticLayer, get_layer_types_and_kwargs
except ImportError as error:
    raise UnsupportedError(
        "StoredCache is a cache of transformers' models and needs transformers 5: pip install 'effcc[models]' "
        f"'transformers>=5' (effcc.StoredState needs PyTorch alone); {error}"
    ) from error

ATTENTION = ("full_attention", "sliding_attention", "chunked_attention")
"""Layers that keep keys and values. Those with a window keep all tokens, too, and their masks hide the others."""


class StoredLayer(StaticLayer):
    """Keys and values of one layer, f[batch, heads, max_cache_len, width], each a `StoredState`."""

    keys: StoredState  # type: ignore[assignment]
    values: StoredState  # type: ignore[assignment]

    def __init__(self, max_cache_len: int, key_scheme: Encoding | None, value_scheme: Encoding | None) -> None:
        super().__init__(max_cache_len=max_cache_len)
        self.schemes = key_scheme, value_scheme

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate what new keys and values show the shape, dtype and device of."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self.batch_size, self.num_heads = key_states.shape[:2]
        self.k_head_dim, self.v_head_dim = key_states.shape[-1], value_states.shape[-1]

        def state(new: Tensor, scheme: Encoding | None) -> StoredState:
            shape = (*new.shape[:2], self.max_cache_len, new.shape[-1])
            return StoredState(shape, scheme, new.dtype, new.device)

        self.keys, self.values = state(key_states, self.schemes[0]), state(value_states, self.schemes[1])
        self.cumulative_length = self.cumulative_length.to(self.device)
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write new keys and values behind those that are there; returns all of them, decoded."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        count = key_states.shape[-2]
        places = torch.arange(count, device=self.device) + self.cumulative_length
        self.cumulative_length.add_(count)
        self.keys.write(2, places, key_states)
        self.values.write(2, places, value_states)
        return self.keys.read(), self.values.read()

    def reset(self) -> None:
        """Forget all tokens."""
        if self.is_initialized:
            self.keys.clear()
            self.values.clear()
        self.cumulative_length.zero_()

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Give every beam the codes of the one that it continues."""
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some sequences of the batch."""
        if self.is_initialized:
            self.keys.select(0, indices)
            self.values.select(0, indices)
            self.batch_size = len(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each sequence of the batch."""
        if self.is_initialized:
            self.batch_select_indices(torch.arange(self.batch_size, device=self.device).repeat_interleave(repeats))


class StoredCache(Cache):
    """A static cache of transformers' models (`past_key_values`) that stores keys and values as codes.

    config: the model's. max_cache_len: how many tokens there is room for.
    keys, values: schemes as `StoredState` takes them, such as `int8` (a scale for each token and head) or
        `int4(group=32)` (one for every 32 of them along the head's width); or by the layer's number:
        `{"0": None, "*": "int4(group=32)"}`, where None, or no pattern that matches, keeps the model's dtype.

    A token's keys and values are encoded when they are written, in place, and stay so; attention computes with what the
    codes stand for, the newest token's included. Compiled, it reads the codes, and no decoded copy is made. Layers with
    a sliding window keep all tokens.

    Where the model is compiled, `initialize` the cache before its first call: otherwise the second call sees another
    kind of cache, and is captured anew.

    Raises EncodingError for a scheme that does not fit the heads' width or cannot be written token by token, saying
    what would; UnsupportedError for models with layers that keep other things than keys and values.

        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> config = LlamaConfig(
        ...     num_hidden_layers=2, hidden_size=64, num_attention_heads=2, intermediate_size=64, vocab_size=99
        ... )
        >>> cache = StoredCache(config, 100, keys="int8", values="int4(group=32)").initialize()
        >>> made = LlamaForCausalLM(config).eval()(torch.arange(5)[None], past_key_values=cache, use_cache=True)
        >>> cache, cache.get_seq_length().item()
        (StoredCache(2 layers, 22,400 bytes), 5)
    """

    def __init__(
        self, config: Any, max_cache_len: int, keys: Schemes | None = "int8", values: Schemes | None = "int8"
    ) -> None:
        if max_cache_len < 1:
            raise InputError(f"StoredCache: expected room for at least one token, got max_cache_len={max_cache_len}")
        self.config = config.get_text_config(decoder=True)
        kinds, _ = get_layer_types_and_kwargs(self.config)
        others = sorted({k for k in kinds if k not in ATTENTION})
        if others:
            raise UnsupportedError(
                f"StoredCache keeps keys and values of {', '.join(ATTENTION)}; this model has {', '.join(others)}"
            )
        by_layer = zip(_by_layer("keys", keys, len(kinds)), _by_layer("values", values, len(kinds)), strict=True)
        made = [StoredLayer(max_cache_len, *schemes) for schemes in by_layer]
        for scheme in {s for layer in made for s in layer.schemes if s is not None}:
            row_codes(scheme, self._head_dim)
        super().__init__(layers=[*made])

    @property
    def _head_dim(self) -> int:
        return int(getattr(self.config, "head_dim", None) or self.config.hidden_size // self.config.num_attention_heads)

    def initialize(self, batch_size: int = 1, dtype: torch.dtype | None = None, device: str = "cpu") -> StoredCache:
        """Allocate all layers for sequences of a batch, as the configuration says their sizes; returns the cache.

        dtype: of what attention reads; default: the model's.
        """
        heads = getattr(self.config, "num_key_value_heads", None) or self.config.num_attention_heads
        dtype = dtype or getattr(self.config, "dtype", None) or torch.float32
        self.early_initialization(batch_size, heads, self._head_dim, dtype, torch.device(device))
        return self

    @property
    def bytes(self) -> int:
        """Of all keys and values, as they are stored; 0 before there are any."""
        layers = [x for x in self.layers if isinstance(x, StoredLayer) and x.is_initialized]
        return sum(x.keys.bytes + x.values.bytes for x in layers)

    def __repr__(self) -> str:
        return f"StoredCache({len(self.layers)} layers, {self.bytes:,} bytes)"


def _by_layer(role: str, given: Schemes | None, count: int) -> list[Encoding | None]:
    """The scheme of each layer. Raises EncodingError for a pattern that is no layer's first."""
    schemes = schemes_of("int8" if given is None else given, encoding_of)
    if given is None:
        return [None] * count
    patterns = [next((p for p in schemes if fnmatchcase(str(i), p)), None) for i in range(count)]
    unused = [p for p in schemes if p not in patterns]
    if unused:
        raise EncodingError(f"{role}: no layer is left for the pattern {unused[0]!r}; layers are 0 to {count - 1}")
    return [None if p is None else schemes[p] for p in patterns]
