"""Emitted Triton modules compiled without a GPU: binaries, with the shared memory and the registers that they use.

    for name, binary in compile_module(text, gpu.parse("sm_90"), folder).items():
        print(name, binary.shared_bytes, binary.registers)

Only Triton is needed, no GPU and no driver.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from effcc.errors import ToolchainError, UnsupportedError
from effcc.gpu import GpuTarget

_ALIGNED = [["tt.divisibility", 16]]
"""What the arenas promise of every pointer: so many bytes' alignment, which wide loads need."""


@dataclass(frozen=True)
class GpuBinary:
    """A compiled kernel: the binary and its text forms by kind (`ptx`, `cubin`, `hsaco`, ...), and what it uses.

    `registers` and `spilled_bytes` are for one thread; None where no tool reads them off the binary.
    """

    name: str
    forms: dict[str, Any]
    shared_bytes: int
    registers: int | None
    spilled_bytes: int | None
    seconds: float


def load_module(text: str, folder: Path) -> ModuleType:
    """An emitted module, imported from a file in `folder` (Triton reads its functions' source).

    Raises UnsupportedError where Triton is not installed.
    """
    if importlib.util.find_spec("triton") is None:
        raise UnsupportedError("Triton is not installed; install effcc's extra `triton` (Linux only)")
    name = f"effcc_triton_{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    path = folder / f"{name}.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def compile_module(
    text: str, target: GpuTarget, folder: Path, kernels: Sequence[str] | None = None
) -> dict[str, GpuBinary]:
    """The kernels of an emitted module (all, or those named) compiled for `target`; files go to `folder`.

    Raises ToolchainError with Triton's message where it refuses a kernel.
    """
    module = load_module(text, folder)
    wanted = list(module.KERNELS) if kernels is None else list(kernels)
    return {name: _compile(module, name, target, folder) for name in wanted}


def _compile(module: ModuleType, name: str, target: GpuTarget, folder: Path) -> GpuBinary:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature, warps, stages = module.KERNELS[name]
    pointers = [n for n, type in enumerate(signature.values()) if type.startswith("*")]
    source = ASTSource(
        fn=getattr(module, name), signature=signature, constexprs={}, attrs={(n,): _ALIGNED for n in pointers}
    )
    options = {"num_warps": warps, "num_stages": stages, "enable_fp_fusion": False}
    begin = time.perf_counter()
    try:
        done = triton.compile(source, target=GPUTarget(target.backend, target.arch, target.warp), options=options)
    except Exception as e:  # Triton raises whatever its passes and the assembler raise
        raise ToolchainError(f"Triton {triton.__version__} refused {name} for {target.name}: {e}") from e
    seconds = time.perf_counter() - begin
    forms = dict(done.asm)
    registers, spilled = _resources(forms.get("cubin"), forms.get("amdgcn"), folder / f"{name}_{target.name}.cubin")
    return GpuBinary(name, forms, int(done.metadata.shared), registers, spilled, seconds)


def _resources(cubin: bytes | None, amdgcn: str | None, path: Path) -> tuple[int | None, int | None]:
    """Registers and spilled bytes of one thread, as the vendor's tool or the assembly's header tells them."""
    if amdgcn is not None:
        found = [re.search(rf"\.{key}:\s+(\d+)", amdgcn) for key in ("vgpr_count", "private_segment_fixed_size")]
        registers, spilled = (int(m.group(1)) if m else None for m in found)
        return registers, spilled
    tool = _cuobjdump()
    if cubin is None or tool is None:
        return None, None
    path.write_bytes(cubin)
    shown = subprocess.run([str(tool), "--dump-resource-usage", str(path)], capture_output=True, text=True, timeout=60)
    path.unlink()
    match = re.search(r"REG:(\d+) STACK:(\d+)", shown.stdout)
    return (int(match.group(1)), int(match.group(2))) if match else (None, None)


def _cuobjdump() -> Path | None:
    """NVIDIA's binary inspector, which Triton's wheel brings along."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    return tool if tool.exists() else None
