"""Features that no weights stand behind: of a composition, and of the density itself, by a fixed rule.

They are used like a frozen backbone: computed once for each crystal, kept as embeddings, read by towers. There is
nothing to fine-tune; what tells one from another is the package or the parameters that make them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from registry.catalog import Catalog
from registry.checksums import json_sha256
from registry.errors import ModelError
from train.backbones.base import Backbone

__all__ = [
    "COMPOSITION_BACKBONES",
    "DENSITY_BACKBONES",
    "CombinedFeatures",
    "FixedFeatures",
    "load_composition_backbone",
    "load_density_backbone",
]


class FixedFeatures(Backbone):
    """Features of inputs by a fixed rule.

    Parameters
    ----------
    name
        Of the rule, in its catalog.
    modality
        ``composition`` (inputs are formulas) or ``density`` (inputs are :class:`train.experiments.rows.DensityGrids`).
    dim
        Number of features D.
    compute
        Gives N inputs their features, (N, D).
    about
        What made the features, as JSON takes it: whenever they would change, this changes.
    groups
        Group of each feature, (D,); one for all where none are given.
    """

    def __init__(
        self,
        name: str,
        modality: str,
        *,
        dim: int,
        compute: Callable[[Iterable[Any]], NDArray[np.floating[Any]]],
        about: Mapping[str, Any],
        groups: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.name = name
        self.modality = modality
        self.dim = dim
        self._compute = compute
        self._about = {"name": name, **about}
        self._network = nn.Identity()
        self._groups = tuple(groups) or (modality,) * dim

    @property
    def groups(self) -> tuple[str, ...]:
        """Group of each feature, (D,)."""
        return self._groups

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of what made the features; there are no weights."""
        return json_sha256(self._about)

    @property
    def network(self) -> nn.Module:
        """Nothing that could be trained."""
        return self._network

    def features(self, values: Any, *, batch_size: int = 32, device: str | None = None) -> NDArray[np.float32]:
        """Features of N inputs, (N, :attr:`dim`); see :meth:`Backbone.features`.

        Raises
        ------
        ModelError
            If a feature is not finite.
        """
        return self._finite(self._compute(values))

    def _finite(self, made: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        features = np.asarray(made, dtype=np.float32).reshape(-1, self.dim)
        if not np.isfinite(features).all():
            bad = int(np.flatnonzero(~np.isfinite(features).all(axis=1))[0])
            raise ModelError(f"{self.name!r} gives features that are not finite for input number {bad}")
        return features

    def preprocessing(self) -> dict[str, Any]:
        """What made the features."""
        return dict(self._about)

    def spec(self) -> dict[str, Any]:
        """Modality and name."""
        return {"modality": self.modality, "name": self.name}


class CombinedFeatures(FixedFeatures):
    """Features of densities and their atoms that are made of other features by a fixed rule.

    Parameters
    ----------
    name, dim, about
        As :class:`FixedFeatures` takes them.
    parts
        Names of the features that it is made of, with the modality of each, ``composition`` or ``density``.
    combine
        From the parts' features by name, (N, D_part) each, to its own, (N, D).
    """

    def __init__(
        self,
        name: str,
        *,
        dim: int,
        parts: Mapping[str, str],
        combine: Callable[[Mapping[str, NDArray[np.floating[Any]]]], NDArray[np.floating[Any]]],
        about: Mapping[str, Any],
    ) -> None:
        self.parts = dict(parts)
        self._combine = combine
        made_of = {part: load(part).preprocessing() for part, load in self._loaders().items()}
        super().__init__(name, "density", dim=dim, compute=self._whole, about={**about, "parts": made_of})

    def combined(self, parts: Mapping[str, NDArray[np.floating[Any]]]) -> NDArray[np.float32]:
        """Features of N crystals, (N, :attr:`dim`), whose parts are known, (N, D_part) each.

        Raises
        ------
        ModelError
            If a feature is not finite.
        """
        return self._finite(self._combine(parts))

    def _whole(self, values: Iterable[Any]) -> NDArray[np.floating[Any]]:
        from pymatgen.core.structure import Structure

        crystals = list(values)
        formulas = [Structure.from_dict(dict(one.structure)).composition.reduced_formula for one in crystals]
        read = {"composition": formulas, "density": crystals}
        return self._combine(
            {part: load(part).features(read[self.parts[part]]) for part, load in self._loaders().items()}
        )

    def _loaders(self) -> dict[str, Callable[[str], FixedFeatures]]:
        loaders = {"composition": load_composition_backbone, "density": load_density_backbone}
        return {part: loaders[modality] for part, modality in self.parts.items()}


COMPOSITION_BACKBONES: Catalog[Callable[[], FixedFeatures]] = Catalog("composition backbones")
"""Makers of features of formulas, by name."""

DENSITY_BACKBONES: Catalog[Callable[[], FixedFeatures]] = Catalog("density backbones")
"""Makers of features of densities, by name."""


def load_composition_backbone(name: str) -> FixedFeatures:
    """The features of formulas that have this name.

    Raises
    ------
    UnknownNameError
        If there is none.
    """
    return COMPOSITION_BACKBONES[name]()


def load_density_backbone(name: str) -> FixedFeatures:
    """The features of densities that have this name.

    Raises
    ------
    UnknownNameError
        If there is none.
    """
    return DENSITY_BACKBONES[name]()


def _magpie() -> FixedFeatures:
    from importlib.metadata import version

    from train.features.magpie import MAGPIE_DIM, magpie_features

    about = {"package": "matminer", "version": version("matminer"), "preset": "magpie"}
    return FixedFeatures(
        "magpie", "composition", dim=MAGPIE_DIM, compute=lambda formulas: magpie_features(list(formulas)), about=about
    )


COMPOSITION_BACKBONES.add("magpie", _magpie)


def _pettifor() -> FixedFeatures:
    from train.features.pettifor import PETTIFOR_DIM, STOICHIOMETRY, WIDTH, pettifor_features

    about = {"scale": "Pettifor 1984", "width": WIDTH, "stoichiometry": STOICHIOMETRY, "version": 1}
    return FixedFeatures(
        "pettifor",
        "composition",
        dim=PETTIFOR_DIM,
        compute=lambda formulas: pettifor_features(list(formulas)),
        about=about,
    )


COMPOSITION_BACKBONES.add("pettifor", _pettifor)


def _elements() -> FixedFeatures:
    from importlib.metadata import version

    from train.features.composition import PARAMETERS, composition_features, composition_groups

    groups = _spread(composition_groups())
    return FixedFeatures(
        "elements",
        "composition",
        dim=len(groups),
        compute=lambda formulas: composition_features(list(formulas)),
        about={"package": "matminer", "version": version("matminer"), "parameters": PARAMETERS},
        groups=groups,
    )


def _density_statistics() -> FixedFeatures:
    from train.features.density import PARAMETERS, density_features, density_groups

    groups = _spread(density_groups())

    def compute(crystals: Iterable[Any]) -> NDArray[np.float64]:
        return np.array([density_features(one.values, one.lattice, one.structure) for one in crystals])

    about = {"parameters": PARAMETERS}
    return FixedFeatures("density-statistics", "density", dim=len(groups), compute=compute, about=about, groups=groups)


def _fingerprint() -> FixedFeatures:
    from train.features.fingerprint import FINGERPRINT, PARTS, PETTIFOR_WEIGHT, fingerprint, fingerprint_dim

    about = {"pettifor_weight": PETTIFOR_WEIGHT, "version": 1}
    return CombinedFeatures(FINGERPRINT, dim=fingerprint_dim(), parts=PARTS, combine=fingerprint, about=about)


def _spread(counts: Mapping[str, int]) -> tuple[str, ...]:
    """Group of each column, of the number of columns of each group."""
    return tuple(group for group, count in counts.items() for _ in range(count))


COMPOSITION_BACKBONES.add("elements", _elements)
DENSITY_BACKBONES.add("density-statistics", _density_statistics)
DENSITY_BACKBONES.add("fingerprint", _fingerprint)
