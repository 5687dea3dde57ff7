"""Proposals of new crystals."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ecdreg import Registry
from registry.settings import Settings


@pytest.fixture
def registry(settings: Settings, cluster_url: str) -> Iterator[Registry]:
    with Registry.open(settings.home, cluster_url) as opened:
        yield opened


def test_proposals_have_structures(registry: Registry, baseline: None) -> None:
    found = registry.propose(["k_vrh=50:"], ["k_vrh=max"], like="s-9", k=2)
    assert [s.composition.reduced_formula for s in found.structures()] == [one.formula for one in found]
    assert found.properties == ("k_vrh",)
