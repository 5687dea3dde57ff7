"""Options of an ingest."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ingest.densities.slim import MAX_POINTS
from registry.checksums import json_sha256
from registry.errors import ConfigurationError

__all__ = ["TEXT_MODES", "IngestOptions"]

TEXT_MODES = ("source", "compute", "none")
"""Origin of the texts: the source (computed where it has none), always computed, no texts."""

# Increased when the same input is to give another result, so that the next run prepares it again.
_VERSION = 1


@dataclass(frozen=True)
class IngestOptions:
    """Options of an ingest.

    Raises
    ------
    ConfigurationError
        If a value is invalid.
    """

    fcc: bool = False
    """Keep crystals of an F-centred cubic space group, reject the others."""
    assume_fcc: bool = False
    """With ``fcc``: keep crystals without a structure, and therefore without a known space group."""
    recipes: tuple[str, ...] = ("metric",)
    """Recipes of the slices of every crystal; names in ``ingest.slices.recipes.RECIPES``."""
    texts: str = "source"
    """One of :data:`TEXT_MODES`."""
    level_of_theory: str | None = None
    """Level of theory of properties and densities that do not state theirs."""
    derive_deformation: bool = False
    """Compute a deformation density from the total one and free atoms where a source has none.

    This always applies to crystals of the Materials Project.
    """
    slim: bool = False
    """Keep only the densities that the recipes need, on a grid of at most 60 points along an axis."""
    refresh: bool = False
    """Prepare every crystal again, also those that are unchanged in their source."""
    limit: int | None = None
    """Maximum number of records."""
    workers: int | None = None
    """Number of worker processes; None: one per core; 0: no worker processes."""

    def __post_init__(self) -> None:
        if self.texts not in TEXT_MODES:
            raise ConfigurationError(f"unknown texts={self.texts!r}; choose one of {', '.join(TEXT_MODES)}")
        if self.assume_fcc and not self.fcc:
            raise ConfigurationError("assume_fcc modifies fcc; set both")
        if self.slim and not self.recipes:
            raise ConfigurationError("slim keeps the densities that recipes need, and there is no recipe; give one")
        if self.limit is not None and self.limit < 1:
            raise ConfigurationError(f"limit={self.limit}; give 1 or more, or none for all crystals")
        if self.workers is not None and self.workers < 0:
            raise ConfigurationError(f"workers={self.workers}; give 1 or more, or 0 for no worker processes")
        if repeated := {name for name in self.recipes if self.recipes.count(name) > 1}:
            raise ConfigurationError(f"recipe {min(repeated)!r} is given twice")

    def parameters(self) -> dict[str, Any]:
        """All options as JSON values, as recorded with the run."""
        return {**asdict(self), "recipes": list(self.recipes)}

    def fingerprint(self) -> str:
        """SHA-256 (hex) of every option that changes the result, recipe parameters included.

        Raises
        ------
        UnknownNameError
            If there is no such recipe.
        """
        from ingest.free_atoms.tables import TABLE_VERSION
        from ingest.slices.recipes import RECIPES

        # Included only if set, so that registries without slim ingests keep their fingerprints.
        slim = {"slim": MAX_POINTS} if self.slim else {}
        return json_sha256(
            slim
            | {
                "version": _VERSION,
                "derive_deformation": self.derive_deformation,
                "free_atoms": TABLE_VERSION,
                "fcc": self.fcc,
                "assume_fcc": self.assume_fcc,
                "recipes": {name: [RECIPES[name].parameters(), RECIPES[name].unit] for name in self.recipes},
                "texts": self.texts,
                "level_of_theory": self.level_of_theory,
            }
        )
