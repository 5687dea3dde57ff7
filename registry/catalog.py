"""One way to extend everything: named entries.

Sources, image recipes, text levels, backbones, networks and targets are entries of a
:class:`Catalog`. A package adds its own through an entry point of the group
``ecdreg.<kind>`` (for instance ``ecdreg.recipes``), which is looked up when first needed.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from registry.errors import ConfigurationError, UnknownNameError

__all__ = ["Catalog"]

T = TypeVar("T")


class Catalog(Generic[T]):
    """Named entries of one kind.

    Parameters
    ----------
    kind
        What the entries are, in the plural and as the user says it: ``"recipes"``.
        Also names the entry-point group ``ecdreg.<kind>``, with ``_`` for a space.

    Examples
    --------
    >>> recipes: Catalog[int] = Catalog("recipes")
    >>> recipes.add("metric", 1)
    1
    >>> recipes["metrik"]
    Traceback (most recent call last):
    ...
    registry.errors.UnknownNameError: no entry 'metrik' in recipes; did you mean 'metric'?
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}
        self._plugins_loaded = False

    def add(self, name: str, entry: T) -> T:
        """Add an entry.

        Raises
        ------
        ConfigurationError
            If the name is taken.
        """
        if name in self._entries:
            raise ConfigurationError(f"{self.kind} already has an entry {name!r}; choose another name")
        self._entries[name] = entry
        return entry

    def register(self, name: str) -> Callable[[T], T]:
        """Add the decorated object under ``name``; see :meth:`add` for what it raises."""

        def decorate(entry: T) -> T:
            return self.add(name, entry)

        return decorate

    def names(self) -> list[str]:
        """All names, sorted."""
        self._load_plugins()
        return sorted(self._entries)

    def __getitem__(self, name: str) -> T:
        if name not in self._entries:
            self._load_plugins()
        try:
            return self._entries[name]
        except KeyError:
            near = difflib.get_close_matches(name, self._entries, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(self.names())}"
            raise UnknownNameError(f"no entry {name!r} in {self.kind}; {hint}") from None

    def __contains__(self, name: object) -> bool:
        self._load_plugins()
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())

    def _load_plugins(self) -> None:
        if self._plugins_loaded:
            return
        self._plugins_loaded = True
        for point in entry_points(group="ecdreg." + self.kind.replace(" ", "_")):
            self.add(point.name, point.load())
