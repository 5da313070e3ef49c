"""The process in which Triton interprets emitted modules: `python -m effcc.runtime.triton_worker`.

Triton decides when it is imported whether it interprets, so it does so in a process of its own. A request is a line
with a folder that holds `module.py` and `buffers.npz` and `request.json`; the answer is a line of JSON:
{"error": text or ""}. The buffers after the run are in `results.npz`.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any


def main() -> None:
    """Answer requests until the input ends."""
    if os.environ.get("TRITON_INTERPRET") != "1":
        raise SystemExit("effcc.runtime.triton_worker runs with TRITON_INTERPRET=1")
    for line in sys.stdin:
        try:
            _answer(Path(line.strip()))
            answer = {"error": ""}
        except Exception:
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), flush=True)


def _answer(folder: Path) -> None:
    import numpy as np
    import torch

    from effcc.runtime.triton_compile import load_module

    _repair_interpreter()
    request = json.loads((folder / "request.json").read_text())
    module = load_module((folder / "module.py").read_text(), folder)
    views: dict[str, Any] = {}
    with np.load(folder / "buffers.npz") as stored:
        for name, dtype in request["dtypes"].items():
            views[name] = torch.from_numpy(stored[name].copy()).view(getattr(torch, dtype))
    with np.errstate(all="ignore"):  # 1 / 0 is an infinity for a GPU, and no reason to warn
        module.prepare(views, request["sizes"])
        module.run(views, request["sizes"])
    np.savez(folder / "results.npz", **{name: view.view(torch.uint8).numpy() for name, view in views.items()})


def _repair_interpreter() -> None:
    """Correct what the interpreter (Triton 3.6, 3.7) gets wrong and the compiler right.

    It multiplies bf16 blocks as the integers they are stored in, reads subnormal ones as 0, makes bf16 by cutting off,
    and of integers not at all; it repeats a scalar comparison as a float; with NumPy 2.4, that of 3.6 cannot take the
    end of a range from an argument. Folds by the library's functions, which it would call for one element after the
    other, become NumPy's, which treat NaN alike.
    """
    import numpy as np
    import triton.language as tl
    from triton.runtime import interpreter

    folds: dict[str, Any] = {
        "larger": np.max, "larger_integer": np.max, "smaller": np.min, "smaller_integer": np.min, "times": np.prod,
        "either": np.bitwise_or.reduce, "all_of": np.bitwise_and.reduce,
    }  # fmt: skip
    builder = interpreter.InterpreterBuilder
    if getattr(builder, "repaired_by_effcc", False):
        return
    dot, splat, cast = builder.create_dot, builder.create_splat, builder.cast_impl

    def widened(block: Any) -> Any:
        if block.dtype.scalar != tl.bfloat16:
            return block
        return interpreter.TensorHandle((block.data.astype(np.uint32) << 16).view(np.float32), tl.float32)

    def cast_impl(self: Any, block: Any, type: Any) -> Any:
        if type.scalar != tl.bfloat16 or block.dtype.scalar == tl.bfloat16:
            return cast(self, widened(block) if type.scalar != tl.bfloat16 else block, type)
        bits = block.data.astype(np.float32).view(np.uint32)
        rounded = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
        return interpreter.TensorHandle(np.where(np.isnan(block.data), np.uint16(0x7FC0), rounded), tl.bfloat16)

    def create_dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        return dot(self, widened(a), widened(b), *rest)

    def create_splat(self: Any, type: Any, scalar: Any) -> Any:
        if scalar.data.dtype == np.bool_:
            return interpreter.TensorHandle(np.full(type.shape, scalar.data), tl.int1)
        return splat(self, type, scalar)

    def patch_tensor(tensor: Any, *rest: Any) -> None:
        original(tensor, *rest)
        tensor.__index__ = lambda self: int(np.ravel(self.handle.data)[0])

    def generic_reduce(self: Any, blocks: Any) -> Any:
        fold = folds.get(self.combine_fn.__name__)
        if fold is None or len(blocks) != 1 or self.axis is None:
            return reduce(self, blocks)
        data = fold(blocks[0].handle.data, axis=self.axis, keepdims=self.keep_dims)
        return [self.to_tensor(data, blocks[0].dtype)]

    reduce = interpreter.ReduceOps.generic_reduce
    interpreter.ReduceOps.generic_reduce = generic_reduce
    original = interpreter._patch_lang_tensor
    interpreter._patch_lang_tensor = patch_tensor
    builder.create_dot, builder.create_splat, builder.cast_impl = create_dot, create_splat, cast_impl
    builder.repaired_by_effcc = True


if __name__ == "__main__":
    main()
