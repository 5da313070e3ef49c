"""Rows to come."""

from effcc.ir.op import Op

OPS: list[Op] = []
