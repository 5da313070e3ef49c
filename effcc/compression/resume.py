"""What a method has found so far, in a folder: a run that was ended goes on where it stopped.

One safetensors file a weight, named by everything that decides it: the model, the data, the method, the scheme, and
effcc's own sources. It appears whole or not at all; what was damaged since is found anew.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from effcc.compression.calibrate import Calibration
from effcc.compression.calls import calls_of
from effcc.compression.inputs import InputChange
from effcc.compression.install import Stored, Weight
from effcc.compression.search import Plan, Store, searched
from effcc.frontend.decode import storage_of, to_numpy, to_tensor
from effcc.frontend.importer import TORCH_DTYPES
from effcc.ir.encoding import Encoding
from effcc.runtime.cache_keys import sources_digest
from effcc.runtime.files import aside

Folder = str | os.PathLike[str]
SCALE, ROTATION = "input_scale", "input_rotation"


def searched_from(
    resume: Folder | None,
    how: str,
    model: nn.Module,
    plan: Plan,
    store: Store[Stored],
    data: object,
    needed_by: str | None,
) -> list[tuple[Weight, Stored]]:
    """`searched`, but what the folder `resume` holds is taken from there, and what is found is added to it at once.

    how: what else decides what is found. Data run through the model for those weights alone that are not there yet.
    """
    if resume is None:
        return searched(model, plan, store, data, needed_by)
    kept = Kept(Path(resume), how, model, data)

    def keeping(weight: Weight, wanted: Encoding, gram: Tensor | None) -> Stored:
        found = store(weight, wanted, gram)
        kept.add(weight, wanted, found)
        return found

    known = {w.name: stored for w, wanted in plan if (stored := kept.find(w, wanted)) is not None}
    left = [(w, wanted) for w, wanted in plan if w.name not in known]
    if left:
        known |= {w.name: stored for w, stored in searched(model, left, keeping, data, needed_by)}
    return [(w, known[w.name]) for w, _ in plan]


class Kept:
    """A folder of stored weights. Raises InputError for data that are no calls, or not finite."""

    def __init__(self, folder: Path, how: str, model: nn.Module, data: object) -> None:
        state = [part for entry in model.state_dict().items() for part in entry]
        self.folder = folder
        self.run = digest((sources_digest(), how, type(model).__qualname__, *state, *_leaves(data)))
        folder.mkdir(parents=True, exist_ok=True)

    def find(self, weight: Weight, wanted: Encoding) -> Stored | None:
        """What was found of a weight; None where nothing was, or its file is damaged."""
        try:
            with safe_open(self._file(weight, wanted), "pt") as file:
                said = json.loads(file.metadata()["effcc"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError, ValueError, KeyError, TypeError):
            return None
        if said.pop("digest", None) != digest((*said.values(), *(t for n in sorted(tensors) for t in (n, tensors[n])))):
            return None
        change = InputChange(tensors.pop(SCALE, None), tensors.pop(ROTATION, None))
        arrays = [tensors[name] for name in said["components"]]
        dtype = getattr(torch, said["dtype"])
        made = storage_of(said["encoding"], tuple(said["shape"]), arrays, dtype)
        return Stored(made, [to_numpy(t) for t in arrays], change, said["error"])

    def add(self, weight: Weight, wanted: Encoding, stored: Stored) -> None:
        """Keep what was found of a weight."""
        made, names = stored.storage, [c.name for c in stored.storage.components]
        parts = dict(zip(names, map(to_tensor, stored.arrays), strict=True))
        parts |= {n: t for n, t in ((SCALE, stored.change.scale), (ROTATION, stored.change.rotation)) if t is not None}
        tensors = {name: part.contiguous().clone() for name, part in parts.items()}
        said: dict[str, Any] = {
            "encoding": str(made.encoding),
            "shape": list(made.shape),
            "components": names,
            "dtype": str(TORCH_DTYPES[made.dtype]).removeprefix("torch."),
            "error": stored.error,
        }
        said["digest"] = digest((*said.values(), *(t for n in sorted(tensors) for t in (n, tensors[n]))))
        target = self._file(weight, wanted)
        with aside(target, folder=True) as staged:
            save_file(tensors, staged / target.name, {"effcc": json.dumps(said)})
            os.replace(staged / target.name, target)

    def _file(self, weight: Weight, wanted: Encoding) -> Path:
        return self.folder / f"{digest((self.run, *weight.modules, str(wanted)))}.safetensors"


def _leaves(data: object) -> list[Any]:
    if isinstance(data, Calibration):
        return [part for name, seen in data.seen.items() for part in (name, seen.gram)]
    calls = () if data is None else calls_of(data)
    return [leaf for call in calls for leaf in tree_leaves((call.args, dict(call.kwargs)))]


def digest(parts: Iterable[Any]) -> str:
    """A name for values: what tensors hold, and how others are written."""
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            found.update(f"{part.dtype}{tuple(part.shape)}".encode())
            found.update(part.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        else:
            found.update(f"{part!r}\0".encode())
    return found.hexdigest()[:40]
