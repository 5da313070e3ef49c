"""What the compiler does grows as a model's layers do, not faster."""

from __future__ import annotations

import cProfile
import pstats

from effcc.ir.parser import parse_graph
from effcc.steps import STEPS, State
from effcc.target import generic


def layers(count: int) -> str:
    """A residual network: equal layers of two products, a norm before them, and their weights."""
    params, lines = ["%x0: f32[16,512]"], []
    for n in range(count):
        params += [f"%w{n}: f32[512,512]", f"%v{n}: f32[512,512]", f"%b{n}: f32[512]"]
        lines += [
            f"%h{n} = linear %x{n}, %w{n}, %b{n} : f32[16,512]",
            f'%g{n} = gelu %h{n} {{approximate="none"}} : f32[16,512]',
            f"%k{n} = linear %g{n}, %v{n} : f32[16,512]",
            f"%s{n} = add %k{n}, %x{n} : f32[16,512]",
            f"%x{n + 1} = tanh %s{n} : f32[16,512]",
        ]
    return "graph @deep(" + ", ".join(params) + ") {\n" + "\n".join(lines) + f"\nreturn %x{count}\n}}\n"


def groups(count: int) -> str:
    """Layers whose rows are centred by groups: an axis of each is split into groups and their members."""
    lines = []
    for n in range(count):
        lines += [
            f"%r{n} = reshape %x{n} {{shape=[16,8,64]}} : f32[16,8,64]",
            f"%m{n} = sum %r{n} {{axes=[2]}} : f32[16,8]",
            f"%e{n} = reshape %m{n} {{shape=[16,8,1]}} : f32[16,8,1]",
            f"%b{n} = broadcast %e{n} {{shape=[16,8,64]}} : f32[16,8,64]",
            f"%f{n} = reshape %b{n} {{shape=[16,512]}} : f32[16,512]",
            f"%d{n} = sub %x{n}, %f{n} : f32[16,512]",
            f"%x{n + 1} = linear %d{n}, %w : f32[16,512]",
        ]
    return "graph @groups(%x0: f32[16,512], %w: f32[512,512]) {\n" + "\n".join(lines) + f"\nreturn %x{count}\n}}\n"


def calls(text: str, last: str = "emit") -> dict[str, int]:
    """How many functions each step up to `last` calls: unlike its time, that is the same at every run."""
    state, found = State(graph=parse_graph(text)), {}
    for name, step in STEPS.items():
        if list(STEPS).index(name) > list(STEPS).index(last):
            break
        profile = cProfile.Profile()
        profile.enable()
        state = step(state, generic("avx2"))
        profile.disable()
        found[name] = pstats.Stats(profile).total_calls  # type: ignore[attr-defined]
    return found


def test_every_step_is_linear_in_equal_layers() -> None:
    calls(layers(2))  # what is remembered from now on
    few, more, most = (calls(layers(count)) for count in (15, 30, 60))
    for step in STEPS:
        grown, grown_again = more[step] - few[step], most[step] - more[step]
        assert grown_again <= 2.2 * max(grown, 100), (step, few[step], more[step], most[step])


def test_fusion_is_linear_in_layers_whose_axes_are_split() -> None:
    calls(groups(2), "fuse")
    few, more, most = (sum(calls(groups(count), "fuse").values()) for count in (15, 30, 60))
    assert most - more <= 2.2 * (more - few), (few, more, most)
