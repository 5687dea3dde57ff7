"""Free atoms, and what of a crystal's density is not theirs."""

from __future__ import annotations

from ingest.free_atoms.subtraction import deformation, superposition, totals_alone
from ingest.free_atoms.tables import TABLE_VERSION

__all__ = ["TABLE_VERSION", "deformation", "superposition", "totals_alone"]
