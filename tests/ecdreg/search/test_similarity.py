"""Similarity search from Python: neighbours, filters, and errors."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ecdreg import Registry
from registry.errors import ConfigurationError, NotFoundError, QueryError
from registry.settings import Settings


@pytest.fixture
def registry(settings: Settings, cluster_url: str) -> Iterator[Registry]:
    with Registry.open(settings.home, cluster_url) as opened:
        yield opened


def test_neighbours_come_nearest_first(registry: Registry, vectors: dict[str, list[float]]) -> None:
    found = registry.similar("mp-6", k=4)
    assert {one.source_id for one in found} == {"mp-4", "mp-5", "mp-7", "mp-8"}
    distances = [one.distance for one in found]
    assert distances == sorted(distances, key=float)
    stiff = registry.similar("mp-6", k=4, where="k_vrh > 100")
    assert [one.source_id for one in stiff] == ["mp-9", "mp-10", "mp-11", "mp-12"]


def test_what_cannot_be_searched_is_refused(registry: Registry, vectors: dict[str, list[float]]) -> None:
    with pytest.raises(NotFoundError, match="mp-99"):
        registry.similar("mp-99")
    with pytest.raises(QueryError, match="did you mean"):
        registry.similar("mp-6", where="k_vhr > 100")
    with pytest.raises(ConfigurationError):
        registry.similar("mp-6", text="oxide")
