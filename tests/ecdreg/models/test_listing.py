"""Lists, cards, comparisons and aliases of models, from Python."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from ecdreg import Registry
from registry.errors import NotFoundError, UnknownNameError
from registry.settings import Settings


@pytest.fixture
def registry(settings: Settings, cluster_url: str) -> Iterator[Registry]:
    with Registry.open(settings.home, cluster_url) as opened:
        yield opened


def test_versions_are_listed_newest_first(registry: Registry, models: SimpleNamespace) -> None:
    assert [(one.name, one.version) for one in registry.models()] == [("baseline-mean", 1), ("image", 2), ("image", 1)]
    assert list(registry.models(targets=["efermi"])) == []
    with pytest.raises(UnknownNameError, match="did you mean 'k_vrh'"):
        registry.models(targets=["k_vhr"])


def test_two_models_are_compared_on_the_rows_of_both(registry: Registry, models: SimpleNamespace) -> None:
    (one,) = registry.compare_models("image", ["baseline-mean"], targets=["k_vrh"], cv=True)
    assert (one.rmse, one.other_rmse, one.verdict) == (pytest.approx(4.0), pytest.approx(40.0), "better")
    assert one.to_dict()["verdict"] == "better"
    with pytest.raises(NotFoundError):
        registry.compare_models("image", ["baseline-mean"], targets=["efermi"])


def test_an_alias_moves_to_another_version(registry: Registry, models: SimpleNamespace) -> None:
    registry.set_alias("image:k_vrh@1", "mine")
    assert [one.version for one in registry.set_alias("image:k_vrh@2", "mine")] == [2]
