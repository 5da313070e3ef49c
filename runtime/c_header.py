"""The C header of a package: everything a C or C++ program needs to load and run the model, with libc and dlopen
alone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from effcc.ir.dims import evaluate
from effcc.ir.dtypes import DType
from effcc.runtime.arrays import storage_bytes
from effcc.runtime.manifest import LIBRARY, WEIGHTS, Manifest, PackagedBuffer

_C_TYPES = {
    "f64": "double", "f32": "float", "f16": "uint16_t", "bf16": "uint16_t", "i64": "int64_t", "i32": "int32_t",
    "i16": "int16_t", "i8": "int8_t", "u8": "uint8_t", "bool": "uint8_t",
}  # fmt: skip

# Words of C and C++ that the name of an input may be.
_KEYWORDS = frozenset(
    [
        "auto",
        "break",
        "case",
        "char",
        "class",
        "const",
        "continue",
        "default",
        "delete",
        "do",
        "double",
        "else",
        "enum",
        "extern",
        "float",
        "for",
        "goto",
        "if",
        "inline",
        "int",
        "long",
        "namespace",
        "new",
        "operator",
        "private",
        "public",
        "register",
        "return",
        "short",
        "signed",
        "sizeof",
        "static",
        "struct",
        "switch",
        "template",
        "this",
        "throw",
        "try",
        "typedef",
        "union",
        "unsigned",
        "using",
        "virtual",
        "void",
        "volatile",
        "while",
        "and",
        "or",
        "not",
        "xor",
        "true",
        "false",
    ]
)


def identifier(name: str) -> str:
    """`name` as C writes one: `my-model.v2` becomes `my_model_v2`."""
    cleaned = re.sub(r"\W", "_", name, flags=re.ASCII)
    return cleaned if cleaned and not cleaned[0].isdigit() else f"model_{cleaned}"


def c_header(manifest: Manifest, name: str, arena: str, places: Mapping[str, int]) -> str:
    """The header's text.

    name: an identifier that all names in it begin with. arena: bytes of scratch memory as a C expression over the size
    symbols. places: where in the weights file each stored tensor begins.
    """
    kept = [b for b in manifest.buffers if b.role in ("weight", "state", "prepared")]
    position = {b.name: i for i, b in enumerate(manifest.buffers)}
    known = {b.name: b for b in manifest.buffers}
    passed = [known[n] for n in manifest.inputs] + [b for b in manifest.buffers if b.role == "output"]
    rows = [
        f"    {{{position[b.name]}, {places.get(b.name, -1)}L, {storage_bytes(b.type, {})}L}},"
        f"  /* {b.name}: {b.type}, {b.role} */"
        for b in kept
    ]
    sizes = [f"int64_t {s}" for s in manifest.sizes]
    names = _unique([b.name for b in passed], {"model", "threads", "buffers", "sizes", *manifest.sizes})
    parameters = [_parameter(b, names[b.name], b.name in manifest.written) for b in passed]
    return _TEXT.format(
        name=name,
        upper=name.upper(),
        isa=manifest.isa,
        version=manifest.effcc,
        features=", ".join(manifest.features) or "none",
        signature="\n".join(f" *   {names[b.name]}: {b.type} ({b.role})" for b in passed),
        ranges="".join(f" *   {s}: {low} to {high or 'any'}\n" for s, (low, high) in manifest.sizes.items()),
        count=max(len(manifest.buffers), 1),
        library=LIBRARY,
        weights=WEIGHTS,
        rows="\n".join(rows) or "    {-1, -1L, 0L},",
        kept=len(kept),
        run=manifest.run,
        prepare=f'"{manifest.prepare}"' if manifest.prepare else "0",
        parameters=", ".join([f"{name} *model", *parameters, *sizes, "int threads"]),
        places="\n".join(f"    buffers[{position[b.name]}] = (void *){names[b.name]};" for b in passed),
        values=", ".join(manifest.sizes) or "0",
        arena=re.sub(r"(\w+)<i64>", rf"effcc_{name}_\1", arena),
        arena_least=_least(manifest),
        least=", ".join(str(low) for low, _ in manifest.sizes.values()) or "0",
        prepare_at_load=int(bool(manifest.prepare) and manifest.prepare_at == "load"),
        prepare_at_call=int(bool(manifest.prepare) and manifest.prepare_at == "call"),
    )


def _least(manifest: Manifest) -> int:
    """Scratch bytes at the smallest sizes: what `prepare`, which depends on no size, needs at most."""
    return evaluate(manifest.arena_bytes, {name: low for name, (low, _) in manifest.sizes.items()})


def _unique(names: Sequence[str], taken: set[str]) -> dict[str, str]:
    """A C identifier of its own for each name."""
    found: dict[str, str] = {}
    for name in names:
        wanted = identifier(name)
        while wanted in taken or wanted in _KEYWORDS:
            wanted += "_"
        taken.add(wanted)
        found[name] = wanted
    return found


def _parameter(buffer: PackagedBuffer, name: str, written: bool) -> str:
    const = "const " if buffer.role == "input" and not written else ""
    return f"{const}{c_type(buffer.type.dtype)} *{name}"


def c_type(dtype: DType) -> str:
    """How C holds an element; half types as their bits."""
    return _C_TYPES[dtype.name]


_TEXT = """\
/* The model `{name}`, compiled by effcc {version} for {isa} (CPU features: {features}).
 *
 *   {name} model;
 *   if ({name}_open(&model, "folder")) ...;      the unpacked package; 0 or an error (see errno, dlerror)
 *   {name}_run(&model, ..., threads);            from one thread at a time for each {name}
 *   {name}_close(&model);
 *
 * Tensors, row-major unless strides (in elements) are given in braces:
{signature}
{ranges} * Link with -ldl where libc has no dlopen.
 */
#ifndef EFFCC_{upper}_H
#define EFFCC_{upper}_H

#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int (*{name}_entry)(void **buffers, const int64_t *sizes, void *arena, int threads);

typedef struct {{
    void *library;
    {name}_entry run, prepare;
    void *buffers[{count}];
    void *arena;
    int64_t arena_bytes;
}} {name};

/* What outlives a call: its place among the buffers, where it begins in {weights} (-1: computed), bytes. */
typedef struct {{
    int position;
    long begin, bytes;
}} {name}_kept_buffer;

static const {name}_kept_buffer {name}_kept[] = {{
{rows}
}};

static inline int64_t effcc_{name}_floor_divide(int64_t a, int64_t b) {{
    return a / b - (a % b != 0 && (a < 0) != (b < 0));
}}
static inline int64_t effcc_{name}_remainder(int64_t a, int64_t b) {{
    return a - b * effcc_{name}_floor_divide(a, b);
}}
static inline int64_t effcc_{name}_maximum(int64_t a, int64_t b) {{ return a > b ? a : b; }}
static inline int64_t effcc_{name}_minimum(int64_t a, int64_t b) {{ return a < b ? a : b; }}

/* Makes sure of so much scratch memory; 0, or 1 where there is none. */
static inline int {name}_reserve({name} *model, int64_t bytes) {{
    if (model->arena && bytes <= model->arena_bytes) return 0;
    free(model->arena);
    model->arena = aligned_alloc(64, (size_t)(bytes / 64 + 1) * 64);
    model->arena_bytes = model->arena ? bytes : 0;
    return !model->arena;
}}

static inline void {name}_close({name} *model) {{
    for (int i = 0; i < {kept}; ++i) free(model->buffers[{name}_kept[i].position]);
    free(model->arena);
    if (model->library) dlclose(model->library);
    memset(model, 0, sizeof *model);
}}

static inline int {name}_open({name} *model, const char *folder) {{
    char path[4096];
    memset(model, 0, sizeof *model);
    snprintf(path, sizeof path, "%s/{library}", folder);
    model->library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!model->library) return 1;
    *(void **)&model->run = dlsym(model->library, "{run}");
    snprintf(path, sizeof path, "%s/{weights}", folder);
    FILE *file = fopen(path, "rb");
    int failed = !model->run || !file;
    for (int i = 0; !failed && i < {kept}; ++i) {{
        const {name}_kept_buffer *kept = &{name}_kept[i];
        void *memory = aligned_alloc(64, (size_t)(kept->bytes / 64 + 1) * 64);
        model->buffers[kept->position] = memory;
        failed = !memory;
        if (!failed && kept->begin >= 0)
            failed = fseek(file, kept->begin, SEEK_SET) ||
                     fread(memory, 1, (size_t)kept->bytes, file) != (size_t)kept->bytes;
    }}
    if (file) fclose(file);
    const char *prepare = {prepare};
    if (!failed && prepare) {{
        *(void **)&model->prepare = dlsym(model->library, prepare);
        failed = !model->prepare;
    }}
    if (!failed && {prepare_at_load}) {{
        const int64_t sizes[] = {{{least}}};
        failed = {name}_reserve(model, {arena_least}) || model->prepare(model->buffers, sizes, model->arena, 1);
    }}
    if (failed) {name}_close(model);
    return failed;
}}

/* Returns 0, or what the program's own check that failed returns, or -1 where memory is short. */
static inline int {name}_run({parameters}) {{
    void *buffers[{count}];
    const int64_t sizes[] = {{{values}}};
    if ({name}_reserve(model, {arena})) return -1;
    memcpy(buffers, model->buffers, sizeof buffers);
{places}
    if ({prepare_at_call}) model->prepare(buffers, sizes, model->arena, threads);
    return model->run(buffers, sizes, model->arena, threads);
}}

#endif
"""
