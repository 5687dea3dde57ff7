"""What every network has to beat: the mean, and trees on the composition alone."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from registry.errors import ArtifactError, InputError, ModelError
from train.models.checkpoints import pack, unpack
from train.models.trees import Trees

__all__ = ["MAGPIE_DIM", "MagpieBaseline", "MeanBaseline", "magpie_features", "magpie_labels"]

MAGPIE_DIM = 132
"""22 properties of the elements x (minimum, maximum, range, mean, average deviation, mode)."""


@dataclass(frozen=True)
class MeanBaseline:
    """Says the mean of the training rows of everything; its R2 on other rows is 0 at best."""

    mean: float
    """In the unit of the target."""

    @classmethod
    def fit(cls, targets: ArrayLike) -> MeanBaseline:
        """The mean of the training targets, shape (N,), in their unit.

        Raises
        ------
        ModelError
            If there is none, or one is not finite.
        """
        return cls(float(np.mean(_targets(targets))))

    def predict(self, n: int) -> NDArray[np.float64]:
        """The mean, n times, in the unit of the target."""
        return np.full(n, self.mean)

    def to_bytes(self) -> bytes:
        """safetensors."""
        return pack({"mean": torch.tensor(self.mean, dtype=torch.float64)}, kind="baseline-mean", about={})

    @classmethod
    def from_bytes(cls, data: bytes) -> MeanBaseline:
        """The baseline that :meth:`to_bytes` wrote.

        Raises
        ------
        ArtifactError
            If the bytes are no such baseline.
        """
        tensors, _ = unpack(data, kind="baseline-mean")
        if "mean" not in tensors:
            raise ArtifactError("a mean baseline without its mean; train it again")
        return cls(float(tensors["mean"]))


@dataclass(frozen=True, eq=False)
class MagpieBaseline(Trees):
    """Extremely randomised trees on Magpie composition features.

    Trees: P. Geurts, D. Ernst, L. Wehenkel, Machine Learning 63, 3 (2006), as scikit-learn grows them.
    """

    @classmethod
    def fit(cls, features: ArrayLike, targets: ArrayLike, *, seed: int, n_estimators: int = 400) -> MagpieBaseline:
        """Grow the trees.

        Parameters
        ----------
        features
            Shape (N, D), of the training rows: :func:`magpie_features`.
        targets
            Shape (N,), any unit.
        seed
            Of the trees.
        n_estimators
            Number of trees.

        Raises
        ------
        ModelError
            If the lengths differ, there is no row, or a value is not finite.
        """
        from sklearn.ensemble import ExtraTreesRegressor

        x, y = np.asarray(features, dtype=np.float32), _targets(targets)
        if x.ndim != 2 or len(x) != len(y) or not np.isfinite(x).all():
            raise ModelError(f"features {x.shape} for {len(y)} targets; give finite (N, D) with one row a target")
        forest = ExtraTreesRegressor(n_estimators=n_estimators, random_state=seed, n_jobs=-1).fit(x, y)
        return cls.grown(forest.estimators_)

    def predict(self, features: ArrayLike) -> NDArray[np.float64]:
        """Mean over the trees, shape (N,), in the unit of the target.

        Parameters
        ----------
        features
            Shape (N, D), as for :meth:`fit`.

        Raises
        ------
        ModelError
            If the shape is another, or a value is not finite.
        """
        return np.asarray(self.leaves(features).mean(axis=1))

    def to_bytes(self) -> bytes:
        """safetensors."""
        return pack({n: torch.from_numpy(v) for n, v in vars(self).items()}, kind="baseline-magpie", about={})

    @classmethod
    def from_bytes(cls, data: bytes) -> MagpieBaseline:
        """The baseline that :meth:`to_bytes` wrote.

        Raises
        ------
        ArtifactError
            If the bytes are no such baseline.
        """
        tensors, _ = unpack(data, kind="baseline-magpie")
        names = ("roots", "feature", "right", "number")
        if sorted(tensors) != sorted(names):
            raise ArtifactError(f"trees need {', '.join(names)}, found {', '.join(sorted(tensors))}; train again")
        return cls(**{name: tensors[name].numpy() for name in names})


def magpie_features(formulas: Sequence[str]) -> NDArray[np.float64]:
    """Magpie features of compositions.

    L. Ward et al., npj Computational Materials 2, 16028 (2016), from matminer's preset
    ``magpie``. Where the table lacks a property of an element (the electronegativity of He,
    Ne and Ar, for instance) the mean over all elements stands in for it, as matminer does;
    that is the same for every data set.

    Parameters
    ----------
    formulas
        N chemical formulas, for instance ``"Ru2TiGe"``; "NaN" is sodium nitride.

    Returns
    -------
    NDArray
        Shape (N, 132), columns as :func:`magpie_labels` has them, each in the unit of its
        property. Formulas seen before are looked up.

    Raises
    ------
    InputError
        If a formula cannot be read, or has an element that the table lacks altogether.
    """
    if not len(formulas):
        return np.empty((0, MAGPIE_DIM))
    return np.array([_magpie_row(str(formula)) for formula in formulas])


def magpie_labels() -> tuple[str, ...]:
    """Names of the columns of :func:`magpie_features`."""
    return tuple(_featurizer().feature_labels())


@functools.cache
def _featurizer() -> Any:
    from matminer.featurizers.composition import ElementProperty

    return ElementProperty.from_preset("magpie", impute_nan=True)


@functools.cache
def _known_elements() -> frozenset[str]:
    from matminer.utils.data import MagpieData

    # The table as it is: the featurizer's own copy has its gaps filled.
    numbers = MagpieData(impute_nan=False).all_elemental_props["Number"]
    return frozenset(symbol for symbol, number in numbers.items() if np.isfinite(number))


@functools.lru_cache(maxsize=65536)
def _magpie_row(formula: str) -> tuple[float, ...]:
    from pymatgen.core.composition import Composition

    try:
        composition = Composition(formula)
    except (ValueError, KeyError) as error:
        raise InputError(f"formula {formula!r} cannot be read ({error}); write it as Ru2TiGe") from None
    unknown = [element.symbol for element in composition if element.symbol not in _known_elements()]
    if unknown or not composition:
        raise InputError(f"formula {formula!r}: Magpie's table has no element {', '.join(unknown) or 'in it'}")
    with warnings.catch_warnings():
        # pymatgen remarks on each property that it lacks, which imputing is the answer to.
        warnings.simplefilter("ignore")
        return tuple(float(value) for value in _featurizer().featurize(composition))


def _targets(targets: ArrayLike) -> NDArray[np.float64]:
    y = np.asarray(targets, dtype=np.float64)
    if y.ndim != 1 or y.size == 0 or not np.isfinite(y).all():
        raise ModelError(f"targets of shape {y.shape}; give at least one, all finite")
    return y
