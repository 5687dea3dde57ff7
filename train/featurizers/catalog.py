"""Featurizers: features of formulas and of densities by a fixed rule, without weights and without torch.

Their features are used like those of a frozen backbone: computed once for each crystal, stored as embeddings, read by
towers. They cannot be fine-tuned; the package version and the parameters of the rule identify them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from registry.catalog import Catalog
from registry.checksums import json_sha256
from registry.errors import ConfigurationError, ModelError
from train.featurizers import composition, density, fingerprint, magpie, pettifor

__all__ = [
    "COMPOSITION_FEATURIZERS",
    "DENSITY_FEATURIZERS",
    "CombinedFeaturizer",
    "Featurizer",
    "FixedFeaturizer",
    "load_featurizer",
]


class Featurizer(Protocol):
    """Common interface of fixed featurizers and pre-trained backbones (:class:`train.backbones.base.Backbone`)."""

    @property
    def name(self) -> str:
        """Name in its catalog, a folder or a hub id."""

    @property
    def modality(self) -> str:
        """``image``, ``text``, ``composition`` or ``density``."""

    @property
    def dim(self) -> int:
        """Number of features D."""

    @property
    def groups(self) -> tuple[str, ...]:
        """Group of each feature, (D,), for regressors that weigh groups of features."""

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the weights, or of the parameters of the rule."""

    def features(self, values: Any, /) -> NDArray[np.float32]:
        """Features of N inputs, (N, D)."""

    def preprocessing(self) -> dict[str, Any]:
        """JSON description of the processing before and after the weights; identifies encoders."""

    def spec(self) -> dict[str, Any]:
        """JSON arguments of :func:`train.modalities.restore_featurizer`."""


class FixedFeaturizer:
    """Features of inputs by a fixed rule.

    Parameters
    ----------
    name
        Name of the rule in its catalog.
    modality
        ``composition``, for formulas, or ``density``, for :class:`train.modalities.density_grids.DensityGrids`.
    dim
        Number of features D.
    compute
        Function from N inputs to their features, (N, D).
    about
        JSON description of the rule, with every parameter that the features depend on.
    groups
        Group of each feature, (D,); empty for a single group named after the modality.
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
        self.name = name
        self.modality = modality
        self.dim = dim
        self.groups = tuple(groups) or (modality,) * dim
        self._compute = compute
        self._about = {"name": name, **about}

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the description of the rule; there are no weights."""
        return json_sha256(self._about)

    def features(self, values: Iterable[Any], /) -> NDArray[np.float32]:
        """Features of N inputs, (N, :attr:`dim`).

        Raises
        ------
        ModelError
            If a feature is not finite.
        """
        return self._checked(self._compute(values))

    def preprocessing(self) -> dict[str, Any]:
        """JSON description of the rule."""
        return dict(self._about)

    def spec(self) -> dict[str, Any]:
        """Modality and name."""
        return {"modality": self.modality, "name": self.name}

    def _checked(self, computed: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        features = np.asarray(computed, dtype=np.float32).reshape(-1, self.dim)
        if not np.isfinite(features).all():
            bad = int(np.flatnonzero(~np.isfinite(features).all(axis=1))[0])
            raise ModelError(f"{self.name!r} gives features that are not finite for input number {bad}")
        return features


class CombinedFeaturizer(FixedFeaturizer):
    """Features of densities and their structures, computed from the features of other featurizers.

    Parameters
    ----------
    name, dim, about
        As for :class:`FixedFeaturizer`.
    parts
        Modality (``composition`` or ``density``) of each featurizer it is computed from, by name.
    combine
        Function from the features of the parts by name, (N, D_part) each, to the combined features, (N, D).
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
        described = {part: featurizer.preprocessing() for part, featurizer in self._featurizers().items()}
        super().__init__(name, "density", dim=dim, compute=self._from_crystals, about={**about, "parts": described})

    def combined(self, parts: Mapping[str, NDArray[np.floating[Any]]]) -> NDArray[np.float32]:
        """Features of N crystals, (N, :attr:`dim`), from the features of the parts, (N, D_part) each.

        Raises
        ------
        ModelError
            If a feature is not finite.
        """
        return self._checked(self._combine(parts))

    def _from_crystals(self, values: Iterable[Any]) -> NDArray[np.floating[Any]]:
        from pymatgen.core.structure import Structure

        crystals = list(values)
        formulas = [Structure.from_dict(dict(one.structure)).composition.reduced_formula for one in crystals]
        inputs = {"composition": formulas, "density": crystals}
        return self._combine(
            {part: featurizer.features(inputs[self.parts[part]]) for part, featurizer in self._featurizers().items()}
        )

    def _featurizers(self) -> dict[str, FixedFeaturizer]:
        return {part: load_featurizer(modality, part) for part, modality in self.parts.items()}


COMPOSITION_FEATURIZERS: Catalog[Callable[[], FixedFeaturizer]] = Catalog("composition featurizers")
"""Constructors of featurizers of formulas, by name."""

DENSITY_FEATURIZERS: Catalog[Callable[[], FixedFeaturizer]] = Catalog("density featurizers")
"""Constructors of featurizers of densities, by name."""

_CATALOGS = {"composition": COMPOSITION_FEATURIZERS, "density": DENSITY_FEATURIZERS}


def load_featurizer(modality: str, name: str) -> FixedFeaturizer:
    """The featurizer of a modality by name.

    Raises
    ------
    UnknownNameError
        If the catalog of the modality has no such name.
    ConfigurationError
        If the modality has no fixed featurizers.
    """
    if modality not in _CATALOGS:
        raise ConfigurationError(f"modality {modality!r} has no fixed featurizers; give composition or density")
    return _CATALOGS[modality][name]()


@COMPOSITION_FEATURIZERS.register("magpie")
def _magpie() -> FixedFeaturizer:
    return FixedFeaturizer(
        "magpie",
        "composition",
        dim=magpie.MAGPIE_DIM,
        compute=lambda formulas: magpie.magpie_features(list(formulas)),
        about={"package": "matminer", "version": version("matminer"), "preset": "magpie"},
    )


@COMPOSITION_FEATURIZERS.register("pettifor")
def _pettifor() -> FixedFeaturizer:
    return FixedFeaturizer(
        "pettifor",
        "composition",
        dim=pettifor.PETTIFOR_DIM,
        compute=lambda formulas: pettifor.pettifor_features(list(formulas)),
        about={
            "scale": "Pettifor 1984",
            "width": pettifor.WIDTH,
            "stoichiometry": pettifor.STOICHIOMETRY,
            "version": 1,
        },
    )


@COMPOSITION_FEATURIZERS.register("elements")
def _elements() -> FixedFeaturizer:
    groups = _repeated(composition.composition_groups())
    return FixedFeaturizer(
        "elements",
        "composition",
        dim=len(groups),
        compute=lambda formulas: composition.composition_features(list(formulas)),
        about={"package": "matminer", "version": version("matminer"), "parameters": composition.PARAMETERS},
        groups=groups,
    )


@DENSITY_FEATURIZERS.register("density-statistics")
def _density_statistics() -> FixedFeaturizer:
    def compute(crystals: Iterable[Any]) -> NDArray[np.float64]:
        return np.array([density.density_features(one.values, one.lattice, one.structure) for one in crystals])

    groups = _repeated(density.density_groups())
    return FixedFeaturizer(
        "density-statistics",
        "density",
        dim=len(groups),
        compute=compute,
        about={"parameters": density.PARAMETERS},
        groups=groups,
    )


@DENSITY_FEATURIZERS.register("fingerprint")
def _fingerprint() -> FixedFeaturizer:
    return CombinedFeaturizer(
        fingerprint.FINGERPRINT,
        dim=fingerprint.fingerprint_dim(),
        parts=fingerprint.PARTS,
        combine=fingerprint.fingerprint,
        about={"pettifor_weight": fingerprint.PETTIFOR_WEIGHT, "version": 1},
    )


def _repeated(counts: Mapping[str, int]) -> tuple[str, ...]:
    """Group of each column, from the number of columns of each group."""
    return tuple(group for group, count in counts.items() for _ in range(count))
