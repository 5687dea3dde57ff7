"""Catalogs of named entries, which packages can extend through entry points.

Sources, image recipes, text levels, backbones, model kinds, modalities and the like are entries of a :class:`Catalog`.
Another package adds its entries through an entry point of the group ``ecdreg.<kind>`` (for instance
``ecdreg.recipes``), which is loaded when a name is first looked up.
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
        Kind of the entries, in the plural and in the user's words: ``"recipes"``. The entry-point group is
        ``ecdreg.<kind>``, with ``_`` instead of spaces.

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
        self._entry_points_loaded = False

    def add(self, name: str, entry: T) -> T:
        """Add an entry.

        Raises
        ------
        ConfigurationError
            If the catalog already has an entry with this name.
        """
        if name in self._entries:
            raise ConfigurationError(f"{self.kind} already has an entry {name!r}; choose another name")
        self._entries[name] = entry
        return entry

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that adds an object under a name; see :meth:`add` for the errors."""

        def decorate(entry: T) -> T:
            return self.add(name, entry)

        return decorate

    def names(self) -> list[str]:
        """All names, sorted."""
        self._load_entry_points()
        return sorted(self._entries)

    def __getitem__(self, name: str) -> T:
        if name not in self._entries:
            self._load_entry_points()
        try:
            return self._entries[name]
        except KeyError:
            near = difflib.get_close_matches(name, self._entries, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(self.names())}"
            raise UnknownNameError(f"no entry {name!r} in {self.kind}; {hint}") from None

    def __contains__(self, name: object) -> bool:
        self._load_entry_points()
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())

    def _load_entry_points(self) -> None:
        if self._entry_points_loaded:
            return
        self._entry_points_loaded = True  # before loading, because a loaded module may look up names
        try:
            loaded = [(p.name, p.load()) for p in entry_points(group="ecdreg." + self.kind.replace(" ", "_"))]
        except BaseException:
            self._entry_points_loaded = False  # the next lookup reports the error again
            raise
        for name, entry in loaded:
            self.add(name, entry)
