"""What a run has measured and gathered so far, in a folder: one that was ended goes on there.

rows.jsonl     a line for each finished way, known by all that decides it but the sources: a folder serves one version
*.safetensors  what layers saw of the calibration data
stored/        what methods found of each weight (`effcc.quantize(resume=...)`); measured: what budgets measured
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from effcc.compression.calibrate import Calibration
from effcc.compression.calibration import Seen


@dataclass(frozen=True)
class Kept:
    """The folder, or none."""

    folder: Path | None

    def __post_init__(self) -> None:
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)

    def inside(self, name: str) -> Path | None:
        """A place in the folder."""
        return None if self.folder is None else self.folder / name

    def rows(self) -> dict[str, list[str]]:
        """Finished rows by what they are of; a line that was cut short is left out."""
        file = self.inside("rows.jsonl")
        found: dict[str, list[str]] = {}
        for line in file.read_text().splitlines() if file is not None and file.exists() else ():
            try:
                said = json.loads(line)
                found[said["of"]] = list(said["row"])
            except (ValueError, KeyError, TypeError):
                continue
        return found

    def add(self, of: str, row: list[str]) -> None:
        """Keep a row; a line begins with its own newline, so that one that was cut short spoils no other."""
        if (file := self.inside("rows.jsonl")) is not None:
            with file.open("a") as lines:
                lines.write("\n" + json.dumps({"of": of, "row": row}))

    def calibration(self, name: str) -> Calibration | None:
        """What was gathered under a name."""
        file = self.inside(f"{name}.safetensors")
        if file is None or not file.exists():
            return None
        with safe_open(file, "pt") as held:
            said: dict[str, Any] = json.loads(held.metadata()["layers"])
            grams = {key: held.get_tensor(key) for key in held.keys()}  # noqa: SIM118
        return Calibration({layer: Seen(grams[key], rows) for layer, (key, rows) in said.items()})

    def keep(self, name: str, seen: Mapping[str, Seen]) -> None:
        """Keep what was gathered: layers that are given the same tensor share one matrix."""
        file = self.inside(f"{name}.safetensors")
        if file is None:
            return
        grams: dict[int, tuple[str, Tensor]] = {id(s.gram): (layer, s.gram) for layer, s in seen.items()}
        layers = {layer: (grams[id(s.gram)][0], s.rows) for layer, s in seen.items()}
        aside = file.with_suffix(".aside")
        save_file(dict(grams.values()), aside, {"layers": json.dumps(layers)})
        aside.replace(file)
