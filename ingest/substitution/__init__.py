"""New compositions in known structures: elements of known crystals are replaced by similar ones.

``parents`` reads crystals of the registry, ``replacements`` and ``volumes`` model the new ones, ``proposals``
combines them, ``cif`` writes files. It imports ``texts`` and ``registry``; ``ecdreg.search`` imports it.
"""

from __future__ import annotations

from ingest.substitution.cif import write_cif
from ingest.substitution.parents import Parent, known_keys, read_parents
from ingest.substitution.proposals import Proposal, as_crystal, propose
from ingest.substitution.replacements import IONIC, METALLIC
from ingest.substitution.volumes import Volumes, volumes_of

__all__ = [
    "IONIC",
    "METALLIC",
    "Parent",
    "Proposal",
    "Volumes",
    "as_crystal",
    "known_keys",
    "propose",
    "read_parents",
    "volumes_of",
    "write_cif",
]
