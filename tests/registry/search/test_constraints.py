from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import ConfigurationError, UnknownNameError
from registry.search.constraints import (
    Constraint,
    Objective,
    PropertyEstimate,
    pareto_fronts,
    parse_constraint,
    parse_objective,
    probability,
    rank_by_constraints,
    violation,
)


def test_constraints_are_ranges() -> None:
    assert parse_constraint("k_vrh=250:300") == Constraint("k_vrh", 250.0, 300.0)
    assert parse_constraint(" efermi = -1e1 : .5 ") == Constraint("efermi", -10.0, 0.5)
    assert str(parse_constraint("k_vrh=:300")) == "k_vrh=:300"
    assert parse_constraint("k_vrh=5:5").low == 5.0


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("k_vhr=1:2", UnknownNameError, "did you mean 'k_vrh'"),
        ("k_vrh=300:250", ConfigurationError, "did you mean k_vrh=250:300"),
        ("k_vrh=:", ConfigurationError, "not a constraint"),
        ("k_vrh=250", ConfigurationError, "not a constraint"),
        ("k_vrh", ConfigurationError, "not a constraint"),
        ("", ConfigurationError, "not a constraint"),
        ("k_vrh=nan:", ConfigurationError, "not a number"),
        ("k_vrh=inf:", ConfigurationError, "not a number"),
        ("k_vrh=1e999:", ConfigurationError, "too large"),
        ("k_vrh=1_0:", ConfigurationError, "not a number"),
        ("k_vrh=1:2:3", ConfigurationError, "not a number"),
        ("k_vrh=1); DROP TABLE crystals; --:2", ConfigurationError, "not a number"),
        ("k_vrh=٣:", ConfigurationError, "not a number"),
    ],
)
def test_what_is_not_a_constraint(text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        parse_constraint(text)


def test_objectives() -> None:
    assert parse_objective("k_vrh=MAX").cost(3.0) == -3.0
    assert parse_objective("k_vrh=min").cost(3.0) == 3.0
    assert parse_objective("k_vrh=200").cost(150.0) == 50.0
    for bad, message in (("k_vrh=least", "not a number"), ("k_vrh", "not an objective"), ("k=min", "no property 'k'")):
        with pytest.raises(ConfigurationError, match=message):
            parse_objective(bad)


def test_probability_of_a_prediction() -> None:
    predicted = PropertyEstimate(100.0, known=False, lower=100 - 16.448536, upper=100 + 16.448536)  # one sigma is 10
    assert probability(Constraint("k_vrh", 90.0, 110.0), predicted) == pytest.approx(0.682689, abs=1e-5)
    assert probability(Constraint("k_vrh", 100.0, math.inf), predicted) == pytest.approx(0.5)
    assert probability(Constraint("k_vrh", -math.inf, math.inf), predicted) == 1.0
    assert probability(Constraint("k_vrh", 0.0, 1.0), PropertyEstimate(0.5, known=True)) == 1.0
    assert probability(Constraint("k_vrh", 0.0, 1.0), PropertyEstimate(1.5, known=True)) == 0.0
    assert probability(Constraint("k_vrh", 0.0, 1.0), PropertyEstimate(0.5, known=False)) is None
    lopsided = PropertyEstimate(100.0, known=False, lower=99.0, upper=200.0)
    assert probability(Constraint("k_vrh", 90.0, 110.0), lopsided) == pytest.approx(0.5 + 0.0653, abs=1e-3)


@given(
    st.integers(1, 4).flatmap(lambda m: st.lists(st.tuples(*[st.integers(0, 5)] * m), min_size=1, max_size=20)),
)
def test_no_row_of_a_front_dominates_another(costs: list[tuple[int, ...]]) -> None:
    array = np.array(costs, dtype=float)
    numbers = pareto_fronts(array)
    assert numbers.min() == 1

    def dominates(a: np.ndarray, b: np.ndarray) -> bool:
        return bool((a <= b).all() and (a < b).any())

    for i, row in enumerate(array):
        worse = [j for j, other in enumerate(array) if dominates(other, row)]
        assert all(numbers[j] < numbers[i] for j in worse)
        assert numbers[i] == 1 or any(numbers[j] == numbers[i] - 1 for j in worse)


def test_fronts_of_nothing() -> None:
    assert pareto_fronts(np.empty((0, 2))).tolist() == []
    assert pareto_fronts(np.empty((3, 0))).tolist() == [1, 1, 1]


@pytest.mark.parametrize("m", [1, 2, 3])
def test_thousands_are_ranked_quickly(m: int) -> None:
    """One objective makes as many fronts as there are values, and 26000 proposals are no more than fcc-mp gives."""
    n = 26_000 if m < 3 else 5_000
    costs = np.random.default_rng(0).normal(size=(n, m))
    start = time.process_time()
    numbers = pareto_fronts(costs)
    assert time.process_time() - start < 5.0  # 0.04 to 0.1 s; comparing each with each, front by front, took hours
    if m == 1:
        assert sorted(numbers.tolist()) == list(range(1, n + 1))
        assert np.array_equal(np.argsort(numbers), np.argsort(costs[:, 0]))


def test_known_before_predicted_and_met_before_missed() -> None:
    constraint, least = Constraint("k_vrh", 100.0, 200.0), Objective("efermi", "min")

    def row(k: float, e: float, *, known: bool = True) -> dict[str, PropertyEstimate]:
        return {"k_vrh": PropertyEstimate(k, known, k - 50, k + 50), "efermi": PropertyEstimate(e, known=True)}

    rows = [row(250, 0), row(150, 1, known=False), row(150, 2), row(120, 3), row(210, 9)]
    assert rank_by_constraints([constraint], [least], rows) == [
        (2, True, 2),
        (3, True, 3),
        (1, True, 1),
        (4, False, 1),
        (0, False, 2),
    ]
    assert violation(constraint, 250.0) == 50.0
    assert [i for i, _, _ in rank_by_constraints([], [least], rows)] == [0, 1, 2, 3, 4]
