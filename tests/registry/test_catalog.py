"""Tests of catalogs: entries, unknown names, and entry points of other packages."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from registry import catalog
from registry.catalog import Catalog
from registry.errors import ConfigurationError, UnknownNameError


def entry_points(*points: EntryPoint) -> object:
    """A replacement of ``importlib.metadata.entry_points`` that finds these ones."""

    def find(*, group: str) -> list[EntryPoint]:
        return [point for point in points if point.group == group]

    return find


@pytest.fixture
def sizes() -> Catalog[int]:
    """A catalog with one entry."""
    sizes: Catalog[int] = Catalog("image sizes")
    sizes.add("small", 128)
    return sizes


def test_entries_are_found_by_name(sizes: Catalog[int]) -> None:
    sizes.register("large")(256)
    assert (sizes["small"], sizes["large"]) == (128, 256)
    assert sizes.names() == list(sizes) == ["large", "small"]
    assert ("small" in sizes, "medium" in sizes, len(sizes)) == (True, False, 2)


def test_a_duplicate_name_raises(sizes: Catalog[int]) -> None:
    with pytest.raises(ConfigurationError, match="image sizes already has an entry 'small'"):
        sizes.add("small", 64)
    assert sizes["small"] == 128


@pytest.mark.parametrize(("name", "hint"), [("smal", "did you mean 'small'?"), ("zz", "there are: small")])
def test_an_unknown_name_raises_with_a_proposal(sizes: Catalog[int], name: str, hint: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        sizes[name]
    assert str(caught.value) == f"no entry {name!r} in image sizes; {hint}"


def test_entry_points_of_other_packages_are_entries(sizes: Catalog[int], monkeypatch: pytest.MonkeyPatch) -> None:
    points = entry_points(
        EntryPoint("other", "sys:maxsize", "ecdreg.image_sizes"),
        EntryPoint("unrelated", "sys:maxsize", "ecdreg.recipes"),
    )
    monkeypatch.setattr(catalog, "entry_points", points)
    assert sizes.names() == ["other", "small"]
    assert sizes["other"] > 0


def test_an_entry_point_that_fails_is_reported_at_each_lookup(
    sizes: Catalog[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    points = entry_points(
        EntryPoint("good", "sys:maxsize", "ecdreg.image_sizes"),
        EntryPoint("bad", "sys:no_such_name", "ecdreg.image_sizes"),
    )
    monkeypatch.setattr(catalog, "entry_points", points)
    for _ in range(2):
        with pytest.raises(AttributeError, match="no_such_name"):
            sizes.names()
    assert sizes["small"] == 128


def test_a_duplicate_entry_point_raises(sizes: Catalog[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "entry_points", entry_points(EntryPoint("small", "sys:maxsize", "ecdreg.image_sizes")))
    with pytest.raises(ConfigurationError, match="already has an entry 'small'"):
        sizes.names()
