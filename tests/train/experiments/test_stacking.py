"""Out-of-fold tower features: groups stay whole, and one basis is mapped onto another."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from train.experiments.stacking import align, assign_groups


@given(st.lists(st.integers(0, 30), min_size=10, max_size=60), st.integers(0, 5))
def test_groups_are_even_and_keep_a_material_together(numbers: list[int], seed: int) -> None:
    names = [f"mp-{n}" for n in numbers]
    assigned = assign_groups(names, 5, seed=seed)
    place = dict(zip(names, assigned, strict=True))
    assert [place[name] for name in names] == assigned.tolist()
    sizes = np.bincount([place[name] for name in set(names)], minlength=5)
    assert sizes.max() - sizes.min() <= 1


def test_a_linear_change_of_basis_is_undone() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(80, 6)).astype(np.float32)
    change = np.eye(6) + 0.4 * rng.normal(size=(6, 6))
    shift = rng.normal(size=6)
    reference = (features @ change + shift).astype(np.float32)
    others = rng.normal(size=(20, 6)).astype(np.float32)
    np.testing.assert_allclose(align(features, reference, others), others @ change + shift, atol=0.05)


def test_with_nothing_to_learn_the_basis_stays() -> None:
    rng = np.random.default_rng(1)
    features = rng.normal(size=(12, 40)).astype(np.float32)  # fewer rows than units
    others = rng.normal(size=(5, 40)).astype(np.float32)
    np.testing.assert_allclose(align(features, features, others), others, atol=1e-4)
    dead = np.zeros_like(features)
    assert np.isfinite(align(dead, features, others)).all()
