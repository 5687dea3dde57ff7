"""What every worker process of an ingest needs: the fork server imports it once for all."""

from __future__ import annotations

import h5py  # noqa: F401
import pymatgen.io.cif  # noqa: F401
import scipy.ndimage  # noqa: F401
import spglib  # noqa: F401

import ingest.prepare
import ingest.readers.densities
import ingest.slices.recipes
import ingest.sources.folder  # noqa: F401
