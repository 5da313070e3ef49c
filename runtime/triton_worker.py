"""The process in which Triton interprets emitted modules: `python -m effcc.runtime.triton_worker`.

Triton decides when it is imported whether it interprets, so it does so in a process of its own. A request is a line with a
folder that holds `module.py` and `buffers.npz` and `request.json`; the answer is a line of JSON: {"error": text or ""}. The
buffers after the run are in `results.npz`.
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

    request = json.loads((folder / "request.json").read_text())
    module = load_module((folder / "module.py").read_text(), folder)
    views: dict[str, Any] = {}
    with np.load(folder / "buffers.npz") as stored:
        for name, dtype in request["dtypes"].items():
            views[name] = torch.from_numpy(stored[name].copy()).view(getattr(torch, dtype))
    module.prepare(views, request["sizes"])
    module.run(views, request["sizes"])
    np.savez(folder / "results.npz", **{name: view.view(torch.uint8).numpy() for name, view in views.items()})


if __name__ == "__main__":
    main()
