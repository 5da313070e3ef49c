"""Packages through their C interface: what the header says is compiled into a host, and called beside Python's loader.

The host is a few lines of C around the header, compiled without optimization: it hands on pointers and sizes one by
one, each pointer with the type that the program's tensor has, so that an argument in another place is a compiler error
or another result. What the model allocates ends where nothing may be touched.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np

from effcc.errors import InputError
from effcc.fuzz.generate import Array
from effcc.runtime.commands import run_command
from effcc.runtime.manifest import Manifest
from effcc.runtime.toolchain import find_compiler

ARGUMENT = -5  # EFFCC_ARGUMENT
_C_TYPES = {
    "float64": "double", "float32": "float", "float16": "uint16_t", "bfloat16": "uint16_t", "int64": "int64_t",
    "int32": "int32_t", "int16": "int16_t", "int8": "int8_t", "uint8": "uint8_t", "bool": "uint8_t",
}  # fmt: skip
_HOST = """\
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

/* Memory that ends at a page which nobody may touch. */
enum {{ PAGE = 4096, MOST = 256 }};
static struct {{ void *given, *mapped; size_t bytes; }} held[MOST];
static void *host_alloc(size_t alignment, size_t bytes) {{
    size_t pages = (bytes + PAGE - 1) / PAGE * PAGE;
    char *mapped = mmap(0, pages + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED || mprotect(mapped + pages, PAGE, PROT_NONE)) return 0;
    char *given = mapped + (pages - bytes) / alignment * alignment;
    for (int i = 0; i < MOST; ++i)
        if (!held[i].given) {{
            held[i].given = given, held[i].mapped = mapped, held[i].bytes = pages + PAGE;
            break;
        }}
    return given;
}}
static void host_free(void *given) {{
    for (int i = 0; given && i < MOST; ++i)
        if (held[i].given == given) munmap(held[i].mapped, held[i].bytes), held[i].given = 0;
}}
#define aligned_alloc host_alloc
#define free host_free
#include "{name}.h"

static {name} model;
int host_open(const char *folder) {{ return {name}_open(&model, folder); }}
const char *host_error(void) {{ return model.error; }}
void host_close(void) {{ {name}_close(&model); }}
int host_run(void **pointers, const int64_t *sizes, int threads) {{
    (void)pointers, (void)sizes;
    return {name}_run({arguments});
}}
"""


class Host:
    """The package in `folder` opened by its C interface; use it as a context manager, which closes it.

    inputs: the names of a call's arrays in their order, as the program has them. Raises ToolchainError for a header
    that does not compile or has other types, InputError where it does not open its own package.
    """

    def __init__(self, folder: Path, manifest: Manifest, inputs: Sequence[str]) -> None:
        self.manifest = manifest
        self.inputs = list(inputs)
        self.results = [b.name for b in manifest.buffers if b.role == "output"]
        self._library = compile_c(self._source(), folder, f"-I{folder}")
        self._library.host_error.restype = ctypes.c_char_p
        code = self._library.host_open(str(folder).encode())
        if code:
            raise InputError(f"C does not open the package ({code}): {self._error()}")

    def __enter__(self) -> Host:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._library.host_close()

    def run(self, arrays: Mapping[str, Array], sizes: Mapping[str, int], threads: int) -> dict[str, Array]:
        """The outputs by name, as Python's loader gives them. Raises InputError where the call returns an error."""
        code, results = self._call(arrays, sizes, threads)
        if code:
            raise InputError(f"C refuses a call that Python takes ({code}): {self._error()}")
        given = {**arrays, **results}
        return {n: given[n] for n in self.manifest.outputs}

    def refuses(self, arrays: Mapping[str, Array], sizes: Mapping[str, int]) -> bool:
        """Whether a call at sizes that it may not have is refused; its arrays are not touched."""
        pointers = (ctypes.c_void_p * (len(arrays) + len(self.results)))(*[64] * (len(arrays) + len(self.results)))
        return bool(self._library.host_run(pointers, self._numbers(sizes), 1) == ARGUMENT)

    def _call(
        self, arrays: Mapping[str, Array], sizes: Mapping[str, int], threads: int
    ) -> tuple[int, dict[str, Array]]:
        by_name = self.manifest.by_name
        memory, placed = [], {}
        for name in (*self.inputs, *self.results):
            place = by_name[name].at(sizes)
            memory.append(np.full(max(place.bytes, 1), 0xFF, np.uint8))
            placed[name] = np.ndarray(place.shape, place.dtype, memory[-1], 0, place.strides)
            if name in arrays:
                placed[name][...] = arrays[name]
        pointers = (ctypes.c_void_p * len(memory))(*(m.ctypes.data for m in memory))
        return self._library.host_run(pointers, self._numbers(sizes), threads), placed

    def _numbers(self, sizes: Mapping[str, int]) -> ctypes.Array[ctypes.c_int64]:
        wanted = [sizes[s.name] for s in self.manifest.sizes]
        return (ctypes.c_int64 * max(len(wanted), 1))(*wanted)

    def _error(self) -> str:
        return str(self._library.host_error().decode(errors="replace"))

    def _source(self) -> str:
        by_name = self.manifest.by_name
        typed = [_C_TYPES[by_name[n].numpy.name] for n in (*self.inputs, *self.results)]
        arguments = [f"({t} *)pointers[{k}]" for k, t in enumerate(typed)]
        arguments += [f"sizes[{k}]" for k in range(len(self.manifest.sizes))]
        return _HOST.format(name=self.manifest.name, arguments=", ".join(("&model", *arguments, "threads")))


def compile_c(source: str, path: Path, *flags: str) -> ctypes.CDLL:
    """C text as a library, without optimization; pointers of other types than asked for are errors. `path` is where its
    files are written, without their endings. Raises ToolchainError for what does not compile."""
    text, library = path.with_suffix(".c"), path.with_suffix(".host.so")
    text.write_text(source)
    flags = ("-x", "c", "-std=c11", "-D_GNU_SOURCE", "-O0", "-w", "-Werror=incompatible-pointer-types", *flags)
    run_command([*find_compiler().command, *flags, "-shared", "-fPIC", str(text), "-o", str(library), "-ldl"], 60)
    return ctypes.CDLL(str(library))
