"""What a model reads of a crystal, and what it refuses: whatever is not what it was trained on.

Another recipe, density kind, level of theory or text level gives numbers that mean nothing; the message says what to
give instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from registry.crystals import CrystalData
from registry.errors import IncompatibleInputError, NotFoundError
from registry.image_recipes import recipe_sha256
from registry.models import ImageRecipe
from train.config.config import TrainConfig
from train.experiments.rows import ChannelInputs, Inputs
from train.features.densities import DENSITY_KINDS, DensityGrids, grids_of

__all__ = ["Reader"]


class Reader:
    """Reads of crystals what one model was trained on.

    Parameters
    ----------
    name
        The model, for messages.
    config
        Its modalities.
    described
        What it was trained on, as its checkpoint says.
    """

    def __init__(self, name: str, config: TrainConfig, described: Mapping[str, Any]) -> None:
        self._name = name
        self._config = config
        self._described = described

    def raw(self, inputs: Sequence[CrystalData], *, modalities: Sequence[str] | None = None) -> dict[str, Any]:
        """By modality, what the model reads of N crystals: pixels (N, C, H, W), texts, formulas, densities.

        Parameters
        ----------
        inputs
            N crystals.
        modalities
            Of these alone; None: of all that the model reads.

        Raises
        ------
        IncompatibleInputError
            If a crystal lacks it, or offers it of another recipe, density kind, level of theory or text level.
        """
        read: Mapping[str, Callable[[CrystalData], Any]] = {
            "image": self._pixels,
            "text": self._text,
            "composition": lambda crystal: crystal.formula,
            "density": self._grids,
        }
        wanted = self._config.towers if modalities is None else modalities
        raw: dict[str, Any] = {tower: [read[tower](crystal) for crystal in inputs] for tower in wanted}
        if "image" in raw:
            raw["image"] = np.stack(raw["image"])
        return raw

    def check(self, crystals: Inputs, row: int) -> None:
        """Refuse a crystal of the registry that lacks what the model reads.

        Raises
        ------
        IncompatibleInputError
            As :meth:`raw`.
        """
        name = crystals.source_ids[row]
        if "image" in self._config.towers:
            if crystals.image_sha256[row] is None:
                raise self._no_image(name, [])
            self._check_channels(name, crystals.image_inputs[row])
        if "text" in self._config.towers and crystals.texts[row] is None:
            raise self._no_text(name)
        if "density" in self._config.towers:
            files = crystals.densities[row]
            if files is None or files.level_of_theory not in self._described["density_levels"]:
                raise self._no_density(name, set() if files is None else {files.level_of_theory})

    def recipe_id(self, session: Session) -> int | None:
        """The recipe that the model's images were made with; None for a model without an image tower.

        Raises
        ------
        NotFoundError
            If the registry does not have it.
        """
        if "image" not in self._config.towers:
            return None
        sha256 = self._described["recipe_sha256"]
        found = session.scalar(select(ImageRecipe.id).where(ImageRecipe.sha256 == sha256))
        if found is None:
            raise NotFoundError(f"recipe {self._config.recipe!r} of {self._name} is not in the registry")
        return found

    def _pixels(self, crystal: CrystalData) -> NDArray[np.float32]:
        for image in crystal.slices:
            if recipe_sha256(image.recipe_parameters) == self._described["recipe_sha256"]:
                self._check_channels(crystal.source_id, tuple(image.inputs))
                return image.pixels
        others = sorted({image.recipe_name for image in crystal.slices})
        if self._config.recipe in others:
            raise IncompatibleInputError(
                f"{crystal.source_id} has a slice of another version of the recipe {self._config.recipe!r} than"
                f" {self._name} was trained on; train the model again"
            )
        raise self._no_image(crystal.source_id, others)

    def _text(self, crystal: CrystalData) -> str:
        for description in crystal.descriptions:
            if description.text_level == self._config.text_level:
                return description.text
        raise self._no_text(crystal.source_id)

    def _grids(self, crystal: CrystalData) -> DensityGrids:
        grids = grids_of(crystal, self._described["density_levels"])
        if grids is None:
            raise self._no_density(crystal.source_id, {d.level_of_theory for d in crystal.densities})
        return grids

    def _check_channels(self, name: str, channels: ChannelInputs) -> None:
        trained = [tuple((kind, level) for kind, level in one) for one in self._described["image_inputs"]]
        if channels not in trained:
            raise IncompatibleInputError(
                f"{name} has slices of {_words(channels)}; {self._name} was trained on"
                f" {' or '.join(_words(one) for one in trained)}: give those, and the level of theory where a file"
                " does not say it"
            )

    def _no_image(self, name: str, others: list[str]) -> IncompatibleInputError:
        has = f" (it has {', '.join(others)})" if others else ""
        trained = self._described["image_inputs"]
        kinds = sorted({kind for one in trained for kind, _ in one})
        needs = f"its {' and '.join(kinds)} density" if kinds else "its slices"
        return IncompatibleInputError(
            f"{name} has no slice of the recipe {self._config.recipe!r}{has}, which {self._name} reads;"
            f" give {needs}, or use a model that reads texts alone"
        )

    def _no_text(self, name: str) -> IncompatibleInputError:
        return IncompatibleInputError(
            f"{name} has no text of level {self._config.text_level!r}, which {self._name} reads;"
            " give its structure, or ingest it with texts"
        )

    def _no_density(self, name: str, levels: set[str]) -> IncompatibleInputError:
        has = f" (it has densities of {', '.join(sorted(levels))})" if levels else ""
        return IncompatibleInputError(
            f"{name} has no {' and '.join(DENSITY_KINDS)} density of {' or '.join(self._described['density_levels'])}"
            f"{has}, which {self._name} reads; give it with its structure, or use a model that reads no densities"
        )


def _words(channels: Sequence[Sequence[str]]) -> str:
    return " and ".join(f"{kind} density at {level}" for kind, level in channels) or "imported images"
