"""Densities: total and deformation density with the atoms, and features by a fixed rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY, BIGINT
from sqlalchemy.orm import Session

from registry.crystals import CrystalData
from registry.errors import IncompatibleInputError, ModelError
from registry.files.grids import GridStore
from registry.models import Encoder
from registry.properties import FREE_ATOMS
from train.featurizers.catalog import Featurizer, load_featurizer
from train.modalities.base import Column, EncoderIdentity, Modality
from train.modalities.density_grids import DENSITY_KINDS, DensityFiles, DensityGrids, grids_of, load_densities
from train.modalities.features import DensityFeatures

__all__ = ["DensityModality"]

# Of each crystal, the deformation density at the preferred level of theory whose total density is there too.
_FILES = text(
    """
SELECT r.id, e.level_of_theory, e.uris, e.sha256s
FROM crystal_revisions r
JOIN LATERAL (
    SELECT p.level_of_theory, ARRAY[t.uri, p.uri] AS uris, ARRAY[t.sha256, p.sha256] AS sha256s
    FROM densities p
    JOIN densities t ON t.revision_id = p.revision_id AND t.kind = 'total'
        AND t.level_of_theory = regexp_replace(p.level_of_theory, :free_atoms, '')
    JOIN levels_of_theory l ON l.name = p.level_of_theory
    WHERE r.structure IS NOT NULL AND p.revision_id = r.id AND p.kind = 'deformation'
    ORDER BY l.preference, l.name LIMIT 1
) e ON true
WHERE r.id = ANY(:ids)
"""
).bindparams(bindparam("ids", type_=ARRAY(BIGINT)), free_atoms=f"{FREE_ATOMS}$")


class DensityModality(Modality[DensityFeatures]):
    """The charge densities of a crystal, on their native grids."""

    name: ClassVar[str] = "density"
    place = 3
    config = DensityFeatures

    def find(
        self,
        session: Session,
        config: DensityFeatures,
        revision_ids: Sequence[int],
        formulas: Sequence[str],
        *,
        trained_on: Mapping[str, Any] | None = None,
    ) -> Column:
        """Locations of the stored densities of each crystal."""
        found = {
            row[0]: DensityFiles(row[1], tuple(row[2]), tuple(row[3]))
            for row in session.execute(_FILES, {"ids": [int(i) for i in revision_ids]})
        }
        files = tuple(found.get(int(i)) for i in revision_ids)
        return Column(tuple(None if one is None else one.sha256 for one in files), files)

    def load(
        self,
        session: Session,
        column: Column,
        positions: Sequence[int],
        revision_ids: Sequence[int],
        *,
        grids: GridStore | None,
    ) -> Any:
        """Densities with their atoms, one crystal at a time."""
        if grids is None:
            raise ModelError("features of densities need a grid store; give FeatureCache one")
        return load_densities(session, grids, revision_ids, [column.values[i] for i in positions])

    def missing(self, config: DensityFeatures) -> str:
        """Both kinds of density."""
        return f"{' and '.join(DENSITY_KINDS)} density"

    def spec(self, config: DensityFeatures, column: Column) -> dict[str, Any]:
        """Name of the rule."""
        return {"modality": self.name, "name": config.backbone}

    def encoder_spec(self, encoder: Encoder, name: str) -> dict[str, Any]:
        """Name of the rule in the encoder's preprocessing."""
        return {"modality": self.name, "name": encoder.preprocessing["name"]}

    def load_featurizer(self, spec: Mapping[str, Any], *, models: Path | None) -> Featurizer:
        """The rule that has the name."""
        return load_featurizer(self.name, str(spec["name"]))

    def encoder(self, config: DensityFeatures, column: Column) -> EncoderIdentity:
        """Named as the rule."""
        return EncoderIdentity(config.backbone)

    def describe(self, config: DensityFeatures, column: Column) -> dict[str, Any]:
        """The levels of theory of the densities."""
        return {"density_levels": sorted({one.level_of_theory for one in column.values if one is not None})}

    def read(
        self, crystal: CrystalData, config: DensityFeatures, trained_on: Mapping[str, Any], *, model: str
    ) -> DensityGrids:
        """The densities at a level of theory that the model was trained on."""
        grids = grids_of(crystal, trained_on["density_levels"])
        if grids is None:
            raise _no_density(crystal.source_id, {d.level_of_theory for d in crystal.densities}, trained_on, model)
        return grids

    def check(
        self,
        crystal: str,
        column: Column,
        row: int,
        config: DensityFeatures,
        trained_on: Mapping[str, Any],
        *,
        model: str,
    ) -> None:
        """Refuse a crystal without densities at a level of theory that the model was trained on."""
        files = column.values[row]
        if files is None or files.level_of_theory not in trained_on["density_levels"]:
            raise _no_density(crystal, set() if files is None else {files.level_of_theory}, trained_on, model)

    def encoder_input(self, session: Session, encoder: Encoder, crystal: CrystalData) -> DensityGrids:
        """The densities of the crystal."""
        grids = grids_of(crystal)
        if grids is not None:
            return grids
        raise IncompatibleInputError(
            f"{crystal.source_id} has no {' and '.join(DENSITY_KINDS)} density with a structure, which encoder"
            f" {encoder.name!r} reads; give them, or choose another encoder"
        )


def _no_density(crystal: str, levels: set[str], trained_on: Mapping[str, Any], model: str) -> IncompatibleInputError:
    has = f" (it has densities of {', '.join(sorted(levels))})" if levels else ""
    return IncompatibleInputError(
        f"{crystal} has no {' and '.join(DENSITY_KINDS)} density of {' or '.join(trained_on['density_levels'])}{has},"
        f" which {model} reads; give it with its structure, or use a model that reads no densities"
    )
