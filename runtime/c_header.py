"""The C header of a package: everything a C or C++ program needs to load and run the model, with libc and dlopen
alone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import reduce
from hashlib import sha256
from pathlib import Path

from effcc.runtime.manifest import KEPT, LIBRARY, WEIGHTS, Manifest, NumberArgument, PackagedBuffer
from effcc.runtime.size_trees import FUNCTIONS, Size, evaluate

_SHARED = Path(__file__).absolute().parent / "c" / "package.h"
_SIZES = Path(__file__).absolute().parent / "include" / "effcc" / "sizes.h"

_C_TYPES = {
    "f64": "double", "f32": "float", "f16": "uint16_t", "bf16": "uint16_t", "i64": "int64_t", "i32": "int32_t",
    "i16": "int16_t", "i8": "int8_t", "u8": "uint8_t", "u7": "uint8_t", "i7": "int8_t", "l8": "int8_t",
    "bool": "uint8_t",
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


SIZE_FUNCTIONS = _SHARED.read_text(encoding="utf-8") + _SIZES.read_text(encoding="utf-8")
"""The functions of which what `size_in_c` writes is made, as C."""


def identifier(name: str) -> str:
    """`name` as C writes one: `my-model.v2` becomes `my_model_v2`."""
    cleaned = re.sub(r"\W", "_", name, flags=re.ASCII)
    if not cleaned or cleaned[0].isdigit():
        return f"model_{cleaned}"
    return f"{cleaned}_" if cleaned in _KEYWORDS else cleaned


def c_header(manifest: Manifest, places: Mapping[str, int], library: bytes, weights: bytes) -> str:
    """The header's text.

    places: where in the weights file each stored tensor begins. library, weights: the files that it will open.
    """
    name = manifest.name
    kept = [b for b in manifest.buffers if b.role in KEPT]
    position = {b.name: i for i, b in enumerate(manifest.buffers)}
    passed = [manifest.by_name[n] for n in manifest.inputs] + [b for b in manifest.buffers if b.role == "output"]
    rows = [
        f"    {{{position[b.name]}, {places.get(b.name, -1)}, {b.at({}).bytes}}},  /* {_comment(b)}, {b.role} */"
        for b in kept
    ]
    taken = {"self", "threads", "buffers", "sizes", "wrong", "arena", "code", *_symbols(manifest)}
    names = _unique([*(b.name for b in passed), *(n.name for n in manifest.numbers)], taken)
    parameters = [_parameter(b, names[b.name], b.name in manifest.written) for b in passed]
    return _TEXT.format(
        shared=SIZE_FUNCTIONS if _rounds(manifest) else _SHARED.read_text(encoding="utf-8"),
        name=name,
        upper=name.upper(),
        isa=manifest.target.isa,
        version=manifest.effcc,
        features=", ".join(manifest.target.features) or "none",
        needed=" ".join(manifest.target.features),
        signature="\n".join(
            [
                *(f" *   {names[b.name]}: {b} ({b.role})" for b in passed),
                *(f" *   {names[n.name]}: an integer (input)" for n in manifest.numbers),
            ]
        ),
        ranges="".join(f" *   {s.name}: {s.least} to {s.most or 'any'}\n" for s in manifest.sizes),
        count=max(len(manifest.buffers), 1),
        library=LIBRARY,
        library_bytes=len(library),
        library_digest=sha256(library).hexdigest(),
        weights=WEIGHTS,
        weights_bytes=len(weights),
        weights_digest=sha256(weights).hexdigest(),
        rows="\n".join(rows) or "    {-1, -1, 0},",
        kept=len(kept),
        run=manifest.run,
        prepare=f'"{manifest.prepare}"' if manifest.prepare else "0",
        parameters=", ".join(
            [f"{name} *self", *parameters, *(f"int64_t {s}" for s in _arguments(manifest, names)), "int threads"]
        ),
        told="".join(_told(n, names[n.name]) for n in manifest.numbers),
        limits="".join(
            f"    wrong |= {s.name} < {s.least}" + (f" || {s.name} > {s.most}" if s.most is not None else "") + ";\n"
            for s in manifest.sizes
        ),
        conditions="".join(f"    wrong |= {size_in_c(c)} != 1;\n" for c in manifest.conditions),
        pointers="".join(f"    wrong |= !{names[b.name]} && {_extent(b)} > 0;\n" for b in passed),
        places="\n".join(f"    buffers[{position[b.name]}] = (void *){names[b.name]};" for b in passed),
        values=", ".join(_symbols(manifest)) or "0",
        arena=size_in_c(manifest.arena_bytes),
        arena_least=evaluate(manifest.arena_bytes, {s.name: s.least for s in manifest.sizes}),
        least=", ".join(str(s.least) for s in manifest.sizes) or "0",
        prepare_at_load=int(bool(manifest.prepare) and manifest.prepare_at == "load"),
        prepare_at_call=int(bool(manifest.prepare) and manifest.prepare_at == "call"),
    )


def _rounds(manifest: Manifest) -> bool:
    """Whether sizes are computed by the functions of `effcc/sizes.h`."""
    passed = [d for b in manifest.buffers if b.role in ("input", "output") for d in b.shape]
    return any("size_" in size_in_c(d) for d in (manifest.arena_bytes, *manifest.conditions, *passed))


def _symbols(manifest: Manifest) -> list[str]:
    return [s.name for s in manifest.sizes]


def _arguments(manifest: Manifest, names: Mapping[str, str]) -> list[str]:
    """The integers that a call takes: sizes, then numbers, which tell the sizes that no tensor has."""
    told = {s for n in manifest.numbers for s in n.sizes}
    return [*(s for s in _symbols(manifest) if s not in told), *(names[n.name] for n in manifest.numbers)]


def _told(number: NumberArgument, name: str) -> str:
    """The sizes that a number tells, as C."""
    above, *below = number.sizes
    if not below:
        return f"    const int64_t {above} = {name};\n"
    limit = f"    if ({name} <= -INT64_MAX) {name} = -INT64_MAX;\n"
    return f"{limit}    const int64_t {above} = {name} > 0 ? {name} : 0, {below[0]} = {name} < 0 ? -{name} : 0;\n"


def _comment(buffer: PackagedBuffer) -> str:
    """A buffer's name and type, which may hold the end of a comment."""
    return f"{buffer.name}: {buffer}".replace("*/", "* /")


def size_in_c(size: Size) -> str:
    """A size in C, in steps that notice when they overflow: then they set `wrong`."""
    if isinstance(size, int):
        return f"INT64_C({size})"
    if isinstance(size, float):
        return repr(size)
    if isinstance(size, str):
        return size
    name, *operands = size
    if name in FUNCTIONS:
        return f"size_{name}({', '.join(map(size_in_c, operands))})"
    return reduce(lambda a, b: f"effcc_{name}({a}, {b}, &wrong)", map(size_in_c, operands))


def _extent(buffer: PackagedBuffer) -> str:
    """How many bytes the elements of a buffer take, in C."""
    return size_in_c(("mul", buffer.numpy.itemsize, *buffer.shape))


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
    return f"{const}{_C_TYPES.get(buffer.dtype, 'void')} *{name}"


_TEXT = """\
/* The model `{name}`, compiled by effcc {version} for {isa} (CPU features: {features}).
 *
 *   {name} model;
 *   if ({name}_open(&model, "folder")) puts(model.error);      the unpacked package
 *   if ({name}_run(&model, ..., threads)) puts(model.error);   from one thread at a time for each {name}
 *   {name}_close(&model);
 *
 * Functions return 0 or an EFFCC_...: see below. The library and the weights are read whole when a model is opened, and
 * must be those that this header was written with. What a call has written that returns another number is of no use.
 *
 * Tensors, row-major unless strides (in elements) are given in braces:
{signature}
{ranges} * Link with -ldl where libc has no dlopen.
 */
{shared}
#ifndef EFFCC_{upper}_H
#define EFFCC_{upper}_H

typedef int (*{name}_entry)(void **buffers, const int64_t *sizes, void *arena, int threads, int64_t *fault);

typedef struct {{
    void *library;
    {name}_entry run, prepare;
    void *buffers[{count}];
    void *arena;
    int64_t arena_bytes;
    int (*describe)(const int64_t *fault, char *text, int64_t room);
    char error[EFFCC_LONGEST_ERROR];
}} {name};

/* What outlives a call: its place among the buffers, where it begins in {weights} (-1: computed), bytes. */
typedef struct {{
    int position;
    int64_t begin, bytes;
}} {name}_kept_buffer;

static const {name}_kept_buffer {name}_kept[] = {{
{rows}
}};

/* Makes sure of so much scratch memory; 0, or an error where there is none. */
static inline int {name}_reserve({name} *self, int64_t bytes) {{
    if (self->arena && bytes <= self->arena_bytes) return 0;
    free(self->arena);
    self->arena = aligned_alloc(64, (size_t)(bytes / 64 + 1) * 64);
    self->arena_bytes = self->arena ? bytes : 0;
    return self->arena ? 0 : effcc_fail(self->error, EFFCC_NO_MEMORY, "{name}", "there is no scratch memory");
}}

static inline void {name}_close({name} *self) {{
    if (!self) return;
    for (int i = 0; i < {kept}; ++i) free(self->buffers[{name}_kept[i].position]);
    free(self->arena);
    if (self->library) dlclose(self->library);
    memset(self, 0, offsetof({name}, error));
}}

static inline int {name}_find({name} *self, {name}_entry *entry, const char *symbol) {{
    *(void **)entry = dlsym(self->library, symbol);
    return *entry ? 0 : effcc_fail(self->error, EFFCC_CANNOT_LOAD, "{library}", "it lacks a function of the model");
}}

static inline int {name}_enter({name} *self, {name}_entry entry, void **buffers, const int64_t *sizes, int threads) {{
    int64_t fault[3] = {{0, 0, 0}};
    int code = entry(buffers, sizes, self->arena, threads, fault);
    if (code && self->describe) self->describe(fault, self->error, (int64_t)sizeof self->error);
    return code;
}}

static inline int {name}_read_weights({name} *self, int file) {{
    for (int i = 0; i < {kept}; ++i) {{
        const {name}_kept_buffer *kept = &{name}_kept[i];
        void *memory = aligned_alloc(64, (size_t)(kept->bytes / 64 + 1) * 64);
        self->buffers[kept->position] = memory;
        if (!memory) return effcc_fail(self->error, EFFCC_NO_MEMORY, "{weights}", "there is no memory for them");
        if (kept->begin < 0) continue;
        if (lseek(file, (off_t)kept->begin, SEEK_SET) < 0 || effcc_read(file, (uint8_t *)memory, kept->bytes))
            return effcc_fail(self->error, EFFCC_CANNOT_READ, "{weights}", "it cannot be read to its end");
    }}
    return 0;
}}

static inline int {name}_open_files({name} *self, const char *folder) {{
    char path[4096];
    if (effcc_require_cpu("{needed}", self->error)) return EFFCC_OTHER_CPU;
    int file = effcc_open_checked(folder, "{library}", {library_bytes},
                                  "{library_digest}",
                                  path, sizeof path, self->error);
    if (file < 0) return file;
    close(file);
    self->library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!self->library) {{
        const char *why = dlerror();
        return effcc_fail(self->error, EFFCC_CANNOT_LOAD, "{library}", why ? why : "it cannot be loaded");
    }}
    const char *prepare = {prepare};
    int code = {name}_find(self, &self->run, "{run}");
    *(void **)&self->describe = dlsym(self->library, "effcc_describe"); /* it has none if it checks nothing */
    if (!code && prepare) code = {name}_find(self, &self->prepare, prepare);
    if (code) return code;
    file = effcc_open_checked(folder, "{weights}", {weights_bytes},
                              "{weights_digest}",
                              path, sizeof path, self->error);
    if (file < 0) return file;
    code = {name}_read_weights(self, file);
    close(file);
    if (!code && {prepare_at_load}) {{
        const int64_t sizes[] = {{{least}}};
        code = {name}_reserve(self, {arena_least});
        if (!code) code = {name}_enter(self, self->prepare, self->buffers, sizes, 1);
    }}
    return code;
}}

/* Loads the model from the unpacked package. Returns 0, or an error, which the model's `error` then explains. */
static inline int {name}_open({name} *self, const char *folder) {{
    if (!self) return EFFCC_ARGUMENT;
    memset(self, 0, sizeof *self);
    if (!folder) return effcc_fail(self->error, EFFCC_ARGUMENT, "{name}_open", "there is no folder");
    int code = {name}_open_files(self, folder);
    if (code) {name}_close(self);
    return code;
}}

static inline int {name}_run({parameters}) {{
    void *buffers[{count}];
{told}    const int64_t sizes[] = {{{values}}};
    int wrong = threads < 1;
    if (!self) return EFFCC_ARGUMENT;
    if (!self->run) return effcc_fail(self->error, EFFCC_ARGUMENT, "{name}_run", "the model is not open");
{limits}{conditions}{pointers}    const int64_t arena = {arena};
    if (wrong || arena < 0)
        return effcc_fail(self->error, EFFCC_ARGUMENT, "{name}_run",
                          "a null pointer, a size out of its range, or no thread");
    int code = {name}_reserve(self, arena);
    if (code) return code;
    memcpy(buffers, self->buffers, sizeof buffers);
{places}
    if ({prepare_at_call}) code = {name}_enter(self, self->prepare, buffers, sizes, threads);
    return code ? code : {name}_enter(self, self->run, buffers, sizes, threads);
}}

#endif
"""
