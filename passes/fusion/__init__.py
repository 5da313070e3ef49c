"""Fusion: a graph becomes one cascade, views and cheap producers are inlined, and the rest is cut into kernels."""

from effcc.passes.fusion.fuse import fuse

__all__ = ["fuse"]
