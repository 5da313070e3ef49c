"""Three ways of solving the same problem; each takes a `Problem` and returns a choice within its limits.

integer        CP-SAT: the optimum of the sum of errors, with a proof
dynamic        layer by layer over Pareto-optimal sums, cells of which are merged: near the optimum, without OR-tools
evolutionary   a search that measures whole choices, for errors of layers that do not add up
"""
