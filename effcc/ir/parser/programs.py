"""Programs: buffers, kernels, and the steps of `prepare` and `main`."""

from __future__ import annotations

from lark import Token, Tree

from effcc.errors import UnknownNameError
from effcc.ir.parser.graphs import read_graph, read_op, read_ranges
from effcc.ir.parser.kernels import read_kernel
from effcc.ir.parser.limits import whole
from effcc.ir.parser.syntax import Source, Syntax, tokens, trees
from effcc.ir.parser.types import literal, read_attributes, read_type
from effcc.ir.program import Branch, Buffer, Extern, Join, Launch, Loop, Program, Step


def read_program(source: Source, tree: Syntax) -> Program:
    """The program of a `program` tree."""
    at, inputs, outputs, ranges, *rest = tree.children
    assert isinstance(inputs, Tree) and isinstance(outputs, Tree)
    parts = [part for part in rest if isinstance(part, Tree)]
    buffers = {b.name: b for b in (_buffer(source, part) for part in parts if part.data == "buffer")}
    kernels = {k.name: k for k in (read_kernel(source, part) for part in parts if part.data == "kernel")}

    def names(tokens: list[Token]) -> tuple[str, ...]:
        for token in tokens:
            if str(token) not in buffers:
                with source.at(token):
                    raise UnknownNameError("buffer", str(token), buffers)
        return tuple(str(t) for t in tokens)

    def step(part: Syntax) -> Step:
        if part.data in ("either", "repeat"):
            (condition,) = names(tokens(part))
            first, second = (tuple(step(s) for s in trees(block)) for block in trees(part, "steps"))
            return Branch(condition, first, second) if part.data == "either" else Loop(condition, first, second)
        arguments, results = (names(tokens(t)) for t in trees(part, "names"))
        if part.data == "extern":
            op, _, attributes, *regions, _, reason = part.children
            assert isinstance(op, Tree)
            attrs = read_attributes(source, attributes if isinstance(attributes, Tree) else None)
            why = literal(reason) if isinstance(reason, Token) else ""
            bodies = tuple(read_graph(source, r) for r in regions if isinstance(r, Tree))
            return Extern(read_op(op), arguments, results, attrs, why, regions=bodies)
        if part.data == "join":
            (axis,) = tokens(part)
            (result,) = results
            return Join(arguments, (result,), int(str(axis)))
        (kernel,) = tokens(part)
        if str(kernel)[1:] not in kernels:
            with source.at(kernel):
                raise UnknownNameError("kernel", str(kernel), (f"@{name}" for name in kernels))
        return Launch(str(kernel)[1:], arguments, results)

    def steps(kind: str) -> tuple[Step, ...]:
        return tuple(step(s) for part in parts if part.data == kind for s in trees(part))

    updates = []
    for update in (part for part in parts if part.data == "program_update"):
        target, value = names(tokens(update))
        updates.append((target, value))
    return Program(
        name=str(at)[1:],
        buffers=tuple(buffers.values()),
        inputs=names(tokens(inputs)),
        outputs=names(tokens(outputs)),
        kernels=kernels,
        steps=steps("main"),
        prepare=steps("prepare"),
        updates=tuple(updates),
        ranges=read_ranges(source, ranges if isinstance(ranges, Tree) else None),
    )


def _buffer(source: Source, tree: Syntax) -> Buffer:
    name, type_tree, space, offset, alias = tree.children
    assert isinstance(type_tree, Tree)
    place = None if offset is None else whole(str(offset))
    return Buffer(str(name), read_type(source, type_tree), str(space), place, "" if alias is None else str(alias))
