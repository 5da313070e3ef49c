"""Choosing how each layer is stored, within a budget: `effcc.compress`.

candidates     what each layer may be stored as: encoded modules, their bytes and predicted time
sensitivities  how much each candidate changes its layer's output, and the model's, on calibration data
problem        one candidate a layer, sums within limits: the integer program, as a value
solvers        who solves it: CP-SAT, a dynamic program, an evolutionary search
report         what came out: a line a layer, the Pareto front as a table and a plot
compress       the steps, one after the other
"""
