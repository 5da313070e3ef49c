"""The same problems, given to OR-tools' CP-SAT: an independent solver to agree with."""

from __future__ import annotations

from collections.abc import Mapping

from ortools.sat.python import cp_model

from effcc.passes.tiling.constraints import AllOf, AnyOf, Compare, Constraint, Expr, Name, Number, Op, Problem

LIMIT = 1 << 52


class Translation:
    """Builds one CP-SAT model; every operator becomes a fresh variable with the bounds that follow from its
    arguments.
    """

    def __init__(self, problem: Problem, at_most: int | None) -> None:
        self.model = cp_model.CpModel()
        self._names: Mapping[str, object] = {
            name: self.model.new_int_var_from_domain(cp_model.Domain.from_values(list(domain)), name)
            for name, domain in problem.domains.items()
        }
        self._ranges = {name: (d[0], d[-1]) for name, d in problem.domains.items()}
        self._parameters = problem.parameters
        self._done: dict[Expr, tuple[object, int, int]] = {}
        for c in problem.constraints:
            self._constrain(c, ())
        objective, _, _ = self.expression(problem.objective)
        if at_most is not None:
            self.model.add(objective <= at_most)
        self.model.minimize(objective)

    def expression(self, e: Expr) -> tuple[object, int, int]:
        """The CP-SAT expression, with its least and greatest value."""
        if e not in self._done:
            self._done[e] = self._expression(e)
        return self._done[e]

    def _expression(self, e: Expr) -> tuple[object, int, int]:
        match e:
            case Number(value):
                return value, value, value
            case Name(name) if name in self._parameters:
                value = self._parameters[name]
                return value, value, value
            case Name(name):
                return self._names[name], *self._ranges[name]
            case Op("ceil", (a, b)):
                return self.expression((a + b - 1) / b)
            case Op("round_up", (a, b)):
                return self.expression((a + b - 1) / b * b)
            case Op(kind, args):
                return self._operator(kind, [self.expression(a) for a in args])
        raise TypeError(e)

    def _operator(self, kind: str, args: list[tuple[object, int, int]]) -> tuple[object, int, int]:
        (a, a_low, a_high), *rest = args
        b, b_low, b_high = rest[0] if rest else (0, 0, 0)
        match kind:
            case "+":
                return a + b, a_low + b_low, a_high + b_high
            case "-":
                return a - b, a_low - b_high, a_high - b_low
            case "*" if a_low == a_high or b_low == b_high:
                corners = [x * y for x in (a_low, a_high) for y in (b_low, b_high)]
                return (a_low * b if a_low == a_high else b_low * a), min(corners), max(corners)
            case "*":
                corners = [x * y for x in (a_low, a_high) for y in (b_low, b_high)]
                result = self._fresh(min(corners), max(corners))
                self.model.add_multiplication_equality(result, [a, b])
                return result, min(corners), max(corners)
            case "/":
                # CP-SAT rounds towards zero: shift a dividend that may be negative by a multiple of the divisor.
                shift = max(0, -a_low)
                shifted, low, high = self._operator(
                    "+", [args[0], self._operator("*", [(shift, shift, shift), rest[0]])]
                )
                result = self._fresh(low // b_high, high // b_low)
                self.model.add_division_equality(result, shifted, b)
                return result - shift, low // b_high - shift, high // b_low - shift
            case "%":
                quotient = self._operator("/", args)
                return self._operator("-", [args[0], self._operator("*", [quotient, rest[0]])])
            case "min" | "max":
                pick = min if kind == "min" else max
                low, high = pick(low for _, low, _ in args), pick(high for _, _, high in args)
                result = self._fresh(low, high)
                add = self.model.add_min_equality if kind == "min" else self.model.add_max_equality
                add(result, [x for x, _, _ in args])
                return result, low, high
        raise TypeError(kind)

    def _fresh(self, low: int, high: int):
        if max(abs(low), abs(high)) > LIMIT:
            raise OverflowError("the problem's numbers are too large for CP-SAT")
        return self.model.new_int_var(low, high, "")

    def _constrain(self, c: Constraint, when: tuple[object, ...]) -> None:
        match c:
            case AllOf(parts):
                for p in parts:
                    self._constrain(p, when)
            case AnyOf(parts):
                choices = [self.model.new_bool_var("") for _ in parts]
                self.model.add_bool_or(choices).only_enforce_if(when)
                for p, choice in zip(parts, choices, strict=True):
                    self._constrain(p, (choice,))
            case Compare(relation, lhs, rhs):
                a, b = self.expression(lhs)[0], self.expression(rhs)[0]
                linear = {"<=": a <= b, ">=": a >= b, "<": a < b, ">": a > b, "==": a == b}[relation]
                self.model.add(linear).only_enforce_if(when)


def cp_sat_optimum(problem: Problem, at_most: int | None = None) -> int | None:
    """The least objective, or None when there is no solution; `at_most` is the cost of a solution, if one is known."""
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.max_time_in_seconds = 60
    status = solver.solve(Translation(problem, at_most).model)
    if status == cp_model.INFEASIBLE:
        return None
    if status != cp_model.OPTIMAL:
        raise RuntimeError(f"CP-SAT gave up: {solver.status_name(status)}")
    return round(solver.objective_value)
