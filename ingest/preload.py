"""Modules of the worker processes of an ingest, which the fork server imports once."""

from __future__ import annotations

import h5py  # noqa: F401
import pymatgen.io.cif  # noqa: F401
import scipy.ndimage  # noqa: F401
import spglib  # noqa: F401

import ingest.preparation.prepare
import ingest.readers.densities
import ingest.slices.recipes
import ingest.sources.folder  # noqa: F401
