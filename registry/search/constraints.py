"""Wishes: what a crystal's properties should be, and in which order those that meet them are wanted.

``k_vrh=250:300`` is a constraint, ``formation_energy_per_atom=min`` a preference. Who meets every constraint comes before who does
not; among those that do, the Pareto front over the objectives comes first, and among those that do not, the front over
what they lack (K. Deb et al., IEEE Transactions on Evolutionary Computation 6, 182 (2002): constraint-domination and
non-dominated sorting).
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
    "Value",
    "chance",
    "fronts",
    "lacking",
    "order",
    "parse_constraint",
    "parse_objective",
]

NORMAL_90 = 1.6448536269514722
"""Half the width of a normal distribution's central 90 %, in standard deviations."""


@dataclass(frozen=True)
class Constraint:
    """A range that a property should lie in; both ends belong to it."""

    property: str
    low: float
    """In the property's unit; minus infinity where any small value will do."""
    high: float

    def __str__(self) -> str:
        low, high = ("" if math.isinf(end) else f"{end:g}" for end in (self.low, self.high))
        return f"{self.property}={low}:{high}"


@dataclass(frozen=True)
class Objective:
    """Of two crystals that meet the constraints, which is preferred."""

    property: str
    sense: str
    """``min``, ``max`` or ``near``."""
    target: float = 0.0
    """For ``near``, in the property's unit."""

    def cost(self, value: float) -> float:
        """What is to be small, in the property's unit."""
        if self.sense == "near":
            return abs(value - self.target)
        return value if self.sense == "min" else -value

    def __str__(self) -> str:
        return f"{self.property}={self.target:g}" if self.sense == "near" else f"{self.property}={self.sense}"


@dataclass(frozen=True)
class Value:
    """A property of a crystal, known or predicted."""

    value: float
    """In the property's unit."""
    known: bool
    """Measured or calculated by the source; else a model says it."""
    lower: float | None = None
    """Lower end of the 90 % interval of a prediction; None where the model gives none."""
    upper: float | None = None
    model: str | None = None
    """The model that says it."""


def parse_constraint(text: str) -> Constraint:
    """A constraint from ``PROPERTY=LOW:HIGH``, where either end may be left out.

    Raises
    ------
    UnknownNameError
        If there is no such property; the message proposes the nearest name.
    ConfigurationError
        If it is no such range, an end is no finite number, or the ends are the wrong way round.

    Examples
    --------
    >>> parse_constraint("k_vrh=250:")
    Constraint(property='k_vrh', low=250.0, high=inf)
    """
    name, equals, span = text.partition("=")
    low, colon, high = span.partition(":")
    if not equals or not colon or not (low.strip() or high.strip()):
        raise ConfigurationError(
            f"{_short(text)} is no constraint; write it as k_vrh=250:300, k_vrh=250: or k_vrh=:300"
        )
    found = property_named(name.strip())
    ends = (
        _number(low, text) if low.strip() else -math.inf,
        _number(high, text) if high.strip() else math.inf,
    )
    if ends[0] > ends[1]:
        raise ConfigurationError(
            f"{_short(text)} begins above its end; did you mean {found.name}={ends[1]:g}:{ends[0]:g}?"
        )
    return Constraint(found.name, *ends)


def parse_objective(text: str) -> Objective:
    """A preference from ``PROPERTY=min``, ``PROPERTY=max`` or ``PROPERTY=NUMBER``, as near to which as can be.

    Raises
    ------
    UnknownNameError
        If there is no such property; the message proposes the nearest name.
    ConfigurationError
        If it is something else.
    """
    name, equals, sense = text.partition("=")
    sense = sense.strip().lower()
    if not equals or not sense:
        raise ConfigurationError(f"{_short(text)} is no preference; write it as k_vrh=max, k_vrh=min or k_vrh=200")
    found = property_named(name.strip())
    if sense in ("min", "max"):
        return Objective(found.name, sense)
    return Objective(found.name, "near", _number(sense, text))


def lacking(constraint: Constraint, value: float) -> float:
    """How far a value lies outside a constraint, in the property's unit; 0 inside."""
    return max(constraint.low - value, value - constraint.high, 0.0)


def chance(constraint: Constraint, value: Value) -> float | None:
    """Probability that a crystal meets a constraint.

    1 or 0 for a known value. For a prediction, that of a normal distribution about it whose central 90 % are the
    interval's half width on either side: an assumption, good for an order. None where there is no interval.

    Parameters
    ----------
    constraint
        The range.
    value
        Of the constraint's property.
    """
    if value.known:
        return float(lacking(constraint, value.value) == 0)
    if value.lower is None or value.upper is None:
        return None
    if value.upper <= value.lower:
        return float(lacking(constraint, value.value) == 0)
    # Intervals need not be symmetric; each side has a width of its own.
    below = max(value.value - value.lower, 1e-12) / NORMAL_90
    above = max(value.upper - value.value, 1e-12) / NORMAL_90

    def cumulative(x: float) -> float:
        if math.isinf(x):
            return float(x > 0)
        width = below if x < value.value else above
        return 0.5 * (1.0 + math.erf((x - value.value) / (width * math.sqrt(2.0))))

    return cumulative(constraint.high) - cumulative(constraint.low)


def fronts(costs: ArrayLike) -> NDArray[np.int64]:
    """Number of the Pareto front of each row, from 1: who is in front 1 is beaten by nobody in every column at once.

    Parameters
    ----------
    costs
        (N, M), each to be small; M may be 0, and then all are in front 1.
    """
    array = np.asarray(costs, dtype=np.float64)
    if not array.size:
        return np.ones(len(array), dtype=np.int64)
    # In lexicographic order nobody is beaten by who comes later, so that one pass gives the front of each.
    rows, place = np.unique(array, axis=0, return_inverse=True)
    if rows.shape[1] == 1:
        numbers = np.arange(1, len(rows) + 1)
    elif rows.shape[1] == 2:
        numbers = _fronts_of_two(rows[:, 1])
    else:
        numbers = _fronts_of_many(rows[:, 1:])
    return np.asarray(numbers[place.reshape(-1)], dtype=np.int64)


def order(
    constraints: Sequence[Constraint], objectives: Sequence[Objective], rows: Sequence[Mapping[str, Value]]
) -> list[tuple[int, bool, int]]:
    """The order in which crystals are wanted.

    Parameters
    ----------
    constraints, objectives
        What is wanted.
    rows
        N crystals with a value for every property of these.

    Returns
    -------
    list of (row, meets, front)
        Rows in order: those that meet every constraint first, by front over the objectives (then known before predicted,
        then by chance); then the others, by front over what they lack, each in units of its median lack.
    """
    lacks = np.array([[lacking(w, row[w.property].value) for w in constraints] for row in rows], dtype=np.float64)
    lacks = lacks.reshape(len(rows), len(constraints))
    wants = np.array([[p.cost(row[p.property].value) for p in objectives] for row in rows], dtype=np.float64)
    wants = wants.reshape(len(rows), len(objectives))
    meets = np.asarray(~(lacks > 0).any(axis=1), dtype=bool)
    numbers = np.zeros(len(rows), dtype=np.int64)
    numbers[meets] = fronts(wants[meets])
    numbers[~meets] = fronts(lacks[~meets])
    scale = np.array([np.median(column[column > 0]) if (column > 0).any() else 1.0 for column in lacks.T])
    total = (lacks / scale).sum(axis=1) if constraints else np.zeros(len(rows))

    def place(i: int) -> tuple[float, ...]:
        row = rows[i]
        names = [w.property for w in constraints] + [p.property for p in objectives]
        known = all(row[name].known for name in names)
        chances = [chance(w, row[w.property]) for w in constraints]
        likely = math.prod(c for c in chances if c is not None)
        if not meets[i]:
            return (1, 0, int(numbers[i]), float(total[i]))
        return (0, 0 if known else 1, int(numbers[i]), -likely, *map(float, wants[i]))

    return [(i, bool(meets[i]), int(numbers[i])) for i in sorted(range(len(rows)), key=place)]


def _fronts_of_two(second: NDArray[np.float64]) -> NDArray[np.int64]:
    """Fronts of different rows in lexicographic order, given their second column, in N log N steps."""
    least: list[float] = []  # of each front; grows from front to front
    numbers = np.empty(len(second), dtype=np.int64)
    for i, cost in enumerate(second.tolist()):
        number = bisect_right(least, cost)
        least[number : number + 1] = [cost]
        numbers[i] = number + 1
    return numbers


def _fronts_of_many(others: NDArray[np.float64]) -> NDArray[np.int64]:
    """Fronts of different rows in lexicographic order, given all columns but the first; one behind who beats them."""
    columns = np.ascontiguousarray(others.T)
    numbers = np.zeros(len(others), dtype=np.int64)
    for i in range(len(others)):
        beaten_by = columns[0, :i] <= columns[0, i]
        for column in columns[1:]:
            beaten_by &= column[:i] <= column[i]
        numbers[i] = 1 + (numbers[:i] * beaten_by).max(initial=0)
    return numbers


def _number(text: str, whole: str) -> float:
    # float() takes more than a number is written as: 1_000, nan, ١.
    if not re.fullmatch(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?\s*", text, flags=re.ASCII):
        raise ConfigurationError(f"{_short(text)} in {_short(whole)} is no number; write it as k_vrh=250:300")
    number = float(text)
    if math.isinf(number):
        raise ConfigurationError(f"{_short(text)} in {_short(whole)} is too large a number")
    return number


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
