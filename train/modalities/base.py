"""Modality: the interface of one kind of input, and the catalog of modalities."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from registry.catalog import Catalog
from registry.crystals import CrystalData
from registry.errors import ModelError
from registry.files.grids import GridStore
from registry.models import Encoder
from train.modalities.features import FeatureConfig

if TYPE_CHECKING:
    from train.featurizers.catalog import Featurizer

__all__ = ["MODALITIES", "Column", "EncoderIdentity", "Modality", "modality_order", "restore_featurizer"]

C = TypeVar("C", bound=FeatureConfig)


@dataclass(frozen=True)
class Column:
    """One modality of N crystals, as the registry stores it; None where a crystal lacks it."""

    sha256: tuple[str | None, ...]
    """Checksum of what a featurizer reads of each crystal."""
    values: tuple[Any, ...]
    """Data to load or check it: a formula, a text, the files of a density, the inputs of an image."""

    def __len__(self) -> int:
        return len(self.sha256)

    @property
    def identity(self) -> tuple[Any, ...]:
        """Part of each crystal in the checksum of the rows of an experiment."""
        return self.sha256

    def take(self, positions: NDArray[np.int64]) -> Self:
        """The given rows, in the given order."""
        return replace(
            self,
            sha256=tuple(self.sha256[i] for i in positions),
            values=tuple(self.values[i] for i in positions),
        )


@dataclass(frozen=True)
class EncoderIdentity:
    """Part of an encoder's identity beside the weights and the preprocessing of its featurizer."""

    name: str
    recipe_id: int | None = None
    text_level: str | None = None


class Modality(ABC, Generic[C]):
    """One kind of input of a model: image, text, composition or density.

    A new modality is one subclass with one instance in :data:`MODALITIES`. Configurations, rows, features, training,
    prediction and messages follow from it.
    """

    name: ClassVar[str]
    config: type[C]
    """Type of its features in a configuration."""
    place: ClassVar[int] = 100
    """Place among the modalities: a stack joins its towers in this order, and then by name."""
    widths: ClassVar[tuple[int, ...]] = (512, 512, 256)
    """Default widths of dense layers."""
    dropout: ClassVar[float] = 0.1
    """Default dropout of dense layers."""
    trains_backbone: ClassVar[bool] = False
    """Whether its featurizers are networks that can be fine-tuned."""

    # ------------------------------------------------------------------ the registry

    @abstractmethod
    def find(
        self,
        session: Session,
        config: C,
        revision_ids: Sequence[int],
        formulas: Sequence[str],
        *,
        trained_on: Mapping[str, Any] | None = None,
    ) -> Column:
        """Stored inputs of N crystals, read in one query.

        Parameters
        ----------
        session
            Only read.
        config
            What is read.
        revision_ids, formulas
            N crystals.
        trained_on
            What a model was trained on, as :meth:`describe` gave it, where it names the input exactly.
        """

    @abstractmethod
    def load(
        self,
        session: Session,
        column: Column,
        positions: Sequence[int],
        revision_ids: Sequence[int],
        *,
        grids: GridStore | None,
    ) -> Any:
        """Inputs of crystals of a column, as a featurizer takes them.

        Parameters
        ----------
        session
            Only read.
        column
            As :meth:`find` gave it.
        positions
            Rows of the column.
        revision_ids
            Revisions of these rows.
        grids
            Store of density grids.
        """

    @abstractmethod
    def missing(self, config: C) -> str:
        """Name of the input that a crystal outside the column lacks, for messages: ``image under recipe 'metric'``."""

    # ------------------------------------------------------------------- featurizers

    @abstractmethod
    def spec(self, config: C, column: Column) -> dict[str, Any]:
        """JSON description of the featurizer that a configuration names, for these inputs.

        :meth:`Featurizer.spec` gives the same; it is stored beside a model and has the key ``modality``.
        """

    @abstractmethod
    def encoder_spec(self, encoder: Encoder, name: str) -> dict[str, Any]:
        """JSON description of the featurizer of a frozen encoder.

        Parameters
        ----------
        encoder
            With its preprocessing.
        name
            Full name of the featurizer, of which the encoder's name has the last part.
        """

    @abstractmethod
    def load_featurizer(self, spec: Mapping[str, Any], *, models: Path | None) -> Featurizer:
        """The featurizer of a description.

        Parameters
        ----------
        spec
            As :meth:`spec` gives it.
        models
            Folder of pre-trained backbones; None is ``ECDREG_MODELS``.

        Raises
        ------
        ConfigurationError, UnknownNameError
            If it cannot be found here.
        """

    @abstractmethod
    def encoder(self, config: C, column: Column) -> EncoderIdentity:
        """Identity of the encoder that a featurizer with these inputs is."""

    # -------------------------------------------------------------------- prediction

    def describe(self, config: C, column: Column) -> dict[str, Any]:
        """Description of a model's training data as a JSON object; :meth:`read` and :meth:`check` refuse other data.

        Parameters
        ----------
        config
            What is read.
        column
            Of the cross-validated rows.
        """
        return {}

    @abstractmethod
    def read(self, crystal: CrystalData, config: C, trained_on: Mapping[str, Any], *, model: str) -> Any:
        """Input of a model for a crystal that was prepared from files.

        Parameters
        ----------
        crystal
            As ``ingest.preparation`` makes it.
        config
            What is read.
        trained_on
            What the model was trained on.
        model
            Its name, for messages.

        Raises
        ------
        IncompatibleInputError
            If the crystal lacks it, or offers what the model was not trained on.
        """

    @abstractmethod
    def check(
        self, crystal: str, column: Column, row: int, config: C, trained_on: Mapping[str, Any], *, model: str
    ) -> None:
        """Refuse a crystal of the registry that lacks an input of a model.

        Parameters
        ----------
        crystal
            Its name, for messages.
        column, row
            What the registry has of it.
        config, trained_on, model
            As for :meth:`read`.

        Raises
        ------
        IncompatibleInputError
            As :meth:`read`.
        """

    def encoder_input(self, session: Session, encoder: Encoder, crystal: CrystalData) -> Any:
        """Input of a frozen encoder for a crystal that was prepared from files.

        Raises
        ------
        IncompatibleInputError
            If the crystal lacks it.
        """
        raise ModelError(f"encoder {encoder.name!r} of modality {self.name} does not read crystals from files")

    def batch(self, values: Sequence[Any]) -> Any:
        """Inputs of N crystals together, as a featurizer takes them."""
        return list(values)


MODALITIES: Catalog[Modality[Any]] = Catalog("modalities")
"""Modalities by name."""


def modality_order(name: str) -> tuple[int, str]:
    """Sort key of a modality: its place among all, then its name."""
    return MODALITIES[name].place, name


def restore_featurizer(spec: Mapping[str, Any], *, models: Path | None = None) -> Featurizer:
    """The featurizer that a description stored beside a model names, of any modality.

    Parameters
    ----------
    spec
        As :meth:`Modality.spec` gives it.
    models
        Folder of pre-trained backbones; None is ``ECDREG_MODELS``.

    Raises
    ------
    UnknownNameError
        If the modality is unknown.
    ConfigurationError
        If the featurizer cannot be found here.
    """
    return MODALITIES[str(spec.get("modality"))].load_featurizer(spec, models=models)
