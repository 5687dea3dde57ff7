"""Free atoms: tables of their densities, and deformation densities by subtraction from a total density.

``subtraction`` computes with ``tables`` and ``waves``; ``validation`` compares with calculated densities.
It imports ``densities``, ``slices``, ``sources`` and ``registry``; ``preparation`` and ``ecdreg.benchmarks`` import it.
"""

from __future__ import annotations

from ingest.free_atoms.subtraction import deformation, superposition, totals_without_deformation
from ingest.free_atoms.tables import TABLE_VERSION

__all__ = ["TABLE_VERSION", "deformation", "superposition", "totals_without_deformation"]
