"""CIF files of proposed crystals."""

from __future__ import annotations

import warnings
from pathlib import Path

from ingest.substitution.proposals import Proposal
from registry.errors import InputError

__all__ = ["write_cif"]


def write_cif(proposal: Proposal, folder: Path) -> Path:
    """Write the structure of a proposal to ``FORMULA_PROTOTYPE.cif``, with its symmetry.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    from pymatgen.io.cif import CifWriter

    path = folder / f"{proposal.formula}_{proposal.prototype}.cif"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # spglib's deprecations
        text = str(CifWriter(proposal.structure(), symprec=0.01))
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}; choose another folder") from error
    return path
