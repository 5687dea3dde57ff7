"""Constraints and objectives on properties, and the ranking of crystals by them.

``k_vrh=250:300`` is a constraint, ``formation_energy_per_atom=min`` an objective. Crystals that meet every constraint
are ranked before the others. Among those that do, the first Pareto front of the objectives comes first; among those
that do not, the first front of the constraint violations (K. Deb et al., IEEE Transactions on Evolutionary Computation
6, 182 (2002): constraint-domination and non-dominated sorting).
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from registry.errors import ConfigurationError
from registry.properties import property_named

__all__ = [
    "Constraint",
    "Objective",
    "PropertyEstimate",
    "pareto_fronts",
    "parse_constraint",
    "parse_objective",
    "probability",
    "rank_by_constraints",
    "violation",
]

NORMAL_90 = 1.6448536269514722
"""Half the width of a normal distribution's central 90 %, in standard deviations."""


@dataclass(frozen=True)
class Constraint:
    """A range for a property; both ends are part of it."""

    property: str
    low: float
    """In the property's unit; minus infinity where there is no lower end."""
    high: float
    """In the property's unit; infinity where there is no upper end."""

    def __str__(self) -> str:
        low, high = ("" if math.isinf(end) else f"{end:g}" for end in (self.low, self.high))
        return f"{self.property}={low}:{high}"


@dataclass(frozen=True)
class Objective:
    """A property to minimize, to maximize, or to bring near a value."""

    property: str
    sense: str
    """``min``, ``max`` or ``near``."""
    target: float = 0.0
    """For ``near``, in the property's unit."""

    def cost(self, value: float) -> float:
        """Cost of a value, to be minimized, in the property's unit."""
        if self.sense == "near":
            return abs(value - self.target)
        return value if self.sense == "min" else -value

    def __str__(self) -> str:
        return f"{self.property}={self.target:g}" if self.sense == "near" else f"{self.property}={self.sense}"


@dataclass(frozen=True)
class PropertyEstimate:
    """Value of a property of a crystal, known or predicted."""

    value: float
    """In the property's unit."""
    known: bool
    """Whether the source measured or calculated it; else a model predicts it."""
    lower: float | None = None
    """Lower end of the 90 % interval of a prediction; None where the model has none."""
    upper: float | None = None
    """Upper end of the 90 % interval."""
    model: str | None = None
    """Name of the model that predicts it; None for a known value."""


def parse_constraint(text: str) -> Constraint:
    """Parse a constraint from ``PROPERTY=LOW:HIGH``; either end may be left out.

    Raises
    ------
    UnknownNameError
        If there is no such property; the message proposes the nearest name.
    ConfigurationError
        If it is not such a range, an end is not a finite number, or the lower end is above the upper one.

    Examples
    --------
    >>> parse_constraint("k_vrh=250:")
    Constraint(property='k_vrh', low=250.0, high=inf)
    """
    name, equals, span = text.partition("=")
    low, colon, high = span.partition(":")
    if not equals or not colon or not (low.strip() or high.strip()):
        raise ConfigurationError(
            f"{_short(text)} is not a constraint; write it as k_vrh=250:300, k_vrh=250: or k_vrh=:300"
        )
    found = property_named(name.strip())
    ends = (
        _number(low, text) if low.strip() else -math.inf,
        _number(high, text) if high.strip() else math.inf,
    )
    if ends[0] > ends[1]:
        raise ConfigurationError(
            f"the lower end of {_short(text)} is above its upper end;"
            f" did you mean {found.name}={ends[1]:g}:{ends[0]:g}?"
        )
    return Constraint(found.name, *ends)


def parse_objective(text: str) -> Objective:
    """Parse an objective from ``PROPERTY=min``, ``PROPERTY=max``, or ``PROPERTY=NUMBER`` for the nearest to a number.

    Raises
    ------
    UnknownNameError
        If there is no such property; the message proposes the nearest name.
    ConfigurationError
        If it is none of these.
    """
    name, equals, sense = text.partition("=")
    sense = sense.strip().lower()
    if not equals or not sense:
        raise ConfigurationError(f"{_short(text)} is not an objective; write it as k_vrh=max, k_vrh=min or k_vrh=200")
    found = property_named(name.strip())
    if sense in ("min", "max"):
        return Objective(found.name, sense)
    return Objective(found.name, "near", _number(sense, text))


def violation(constraint: Constraint, value: float) -> float:
    """Distance of a value to the range of a constraint, in the property's unit; 0 inside."""
    return max(constraint.low - value, value - constraint.high, 0.0)


def probability(constraint: Constraint, value: PropertyEstimate) -> float | None:
    """Probability that a crystal meets a constraint.

    1 or 0 for a known value. For a prediction, that of a normal distribution with the prediction as its mean and the
    90 % interval as its central 90 %, with a width of its own on either side. This is an assumption, sufficient for a
    ranking. None where there is no interval.

    Parameters
    ----------
    constraint
        The range.
    value
        Of the constraint's property.

    """
    if value.known:
        return float(violation(constraint, value.value) == 0)
    if value.lower is None or value.upper is None:
        return None
    if value.upper <= value.lower:
        return float(violation(constraint, value.value) == 0)
    # Intervals need not be symmetric: each side has its own width.
    below = max(value.value - value.lower, 1e-12) / NORMAL_90
    above = max(value.upper - value.value, 1e-12) / NORMAL_90

    def cumulative(x: float) -> float:
        if math.isinf(x):
            return float(x > 0)
        width = below if x < value.value else above
        return 0.5 * (1.0 + math.erf((x - value.value) / (width * math.sqrt(2.0))))

    return cumulative(constraint.high) - cumulative(constraint.low)


def pareto_fronts(costs: ArrayLike) -> NDArray[np.int64]:
    """Number of the Pareto front of each row, from 1; no row dominates one in front 1.

    Parameters
    ----------
    costs
        Shape (N, M), each to be minimized; with M = 0 all rows are in front 1.
    """
    array = np.asarray(costs, dtype=np.float64)
    if not array.size:
        return np.ones(len(array), dtype=np.int64)
    # In lexicographic order no row is dominated by a later one, so that one pass gives the front of each.
    rows, place = np.unique(array, axis=0, return_inverse=True)
    if rows.shape[1] == 1:
        numbers = np.arange(1, len(rows) + 1)
    elif rows.shape[1] == 2:
        numbers = _fronts_of_two(rows[:, 1])
    else:
        numbers = _fronts_of_many(rows[:, 1:])
    return np.asarray(numbers[place.reshape(-1)], dtype=np.int64)


def rank_by_constraints(
    constraints: Sequence[Constraint], objectives: Sequence[Objective], rows: Sequence[Mapping[str, PropertyEstimate]]
) -> list[tuple[int, bool, int]]:
    """Rank crystals by constraints and objectives.

    Parameters
    ----------
    constraints, objectives
        Ranges and preferences; either may be empty.
    rows
        N crystals, each with an estimate of every property of these.

    Returns
    -------
    list of (row, meets, front)
        Row numbers in order. Those that meet every constraint come first: known before predicted ones, then by Pareto
        front of the objectives, then by probability. The others follow by front of the violations, then by the sum of
        the violations, each divided by its median.
    """
    violations = np.array(
        [[violation(c, row[c.property].value) for c in constraints] for row in rows], dtype=np.float64
    )
    violations = violations.reshape(len(rows), len(constraints))
    costs = np.array([[o.cost(row[o.property].value) for o in objectives] for row in rows], dtype=np.float64)
    costs = costs.reshape(len(rows), len(objectives))
    meets = np.asarray(~(violations > 0).any(axis=1), dtype=bool)
    numbers = np.zeros(len(rows), dtype=np.int64)
    numbers[meets] = pareto_fronts(costs[meets])
    numbers[~meets] = pareto_fronts(violations[~meets])
    scale = np.array([np.median(column[column > 0]) if (column > 0).any() else 1.0 for column in violations.T])
    total = (violations / scale).sum(axis=1) if constraints else np.zeros(len(rows))

    def place(i: int) -> tuple[float, ...]:
        row = rows[i]
        names = [c.property for c in constraints] + [o.property for o in objectives]
        known = all(row[name].known for name in names)
        probabilities = [probability(c, row[c.property]) for c in constraints]
        joint = math.prod(p for p in probabilities if p is not None)
        if not meets[i]:
            return (1, 0, int(numbers[i]), float(total[i]))
        return (0, 0 if known else 1, int(numbers[i]), -joint, *map(float, costs[i]))

    return [(i, bool(meets[i]), int(numbers[i])) for i in sorted(range(len(rows)), key=place)]


def _fronts_of_two(second: NDArray[np.float64]) -> NDArray[np.int64]:
    """Fronts of distinct rows in lexicographic order, given their second column, in N log N steps."""
    least: list[float] = []  # smallest cost of each front; increases from front to front
    numbers = np.empty(len(second), dtype=np.int64)
    for i, cost in enumerate(second.tolist()):
        number = bisect_right(least, cost)
        least[number : number + 1] = [cost]
        numbers[i] = number + 1
    return numbers


def _fronts_of_many(others: NDArray[np.float64]) -> NDArray[np.int64]:
    """Fronts of distinct rows in lexicographic order, given all columns but the first."""
    columns = np.ascontiguousarray(others.T)
    numbers = np.zeros(len(others), dtype=np.int64)
    for i in range(len(others)):
        dominating = columns[0, :i] <= columns[0, i]
        for column in columns[1:]:
            dominating &= column[:i] <= column[i]
        numbers[i] = 1 + (numbers[:i] * dominating).max(initial=0)
    return numbers


def _number(text: str, whole: str) -> float:
    # float() accepts more than decimal numbers: 1_000, nan, ١.
    if not re.fullmatch(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?\s*", text, flags=re.ASCII):
        raise ConfigurationError(f"{_short(text)} in {_short(whole)} is not a number; write it as k_vrh=250:300")
    number = float(text)
    if math.isinf(number):
        raise ConfigurationError(f"{_short(text)} in {_short(whole)} is too large a number")
    return number


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
