"""Analytic crystals and densities of periodic Gaussians, and an isolated home folder for Materials Project clients."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import BaseModel
from pymatgen.core.lattice import Lattice
from pymatgen.core.structure import Structure

from registry.crystals import DensityData

_original_json_schema = BaseModel.model_json_schema.__func__  # type: ignore[attr-defined]

Charges = Mapping[str, tuple[float, float]]
"""Element: (electrons, width sigma [Å])."""


class MakeDensity(Protocol):
    """Type of :func:`gaussians`."""

    def __call__(
        self, structure: Structure, shape: tuple[int, int, int], charges: Charges, *, kind: str = "total"
    ) -> DensityData: ...


def rock_salt(*, a: float = 5.6, primitive: bool = True) -> Structure:
    """NaCl with lattice parameter ``a`` [Å], in the primitive or the conventional cell."""
    half = np.ones((3, 3)) - np.eye(3)
    if primitive:
        return Structure(a / 2 * half, ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    sodium = np.vstack([np.zeros(3), half / 2])
    return Structure(Lattice.cubic(a), ["Na"] * 4 + ["Cl"] * 4, np.vstack([sodium, sodium + 0.5]))


def gaussians(
    structure: Structure, shape: tuple[int, int, int], charges: Charges, *, kind: str = "total"
) -> DensityData:
    """Sum of periodic Gaussians on the atoms, computed in reciprocal space: exact for all waves of the grid [e/Å^3]."""
    frequencies = np.meshgrid(*[np.fft.fftfreq(points, 1 / points) for points in shape], indexing="ij")
    miller = np.stack(frequencies, axis=-1)
    wave = 2 * np.pi * miller @ np.linalg.inv(structure.lattice.matrix).T
    squares = (wave**2).sum(axis=-1)
    spectrum: NDArray[np.complex128] = np.zeros(shape, dtype=np.complex128)
    for site in structure:
        electrons, sigma = charges[site.specie.symbol]
        phase = np.exp(-2j * np.pi * miller @ site.frac_coords)
        spectrum += electrons * np.exp(-(sigma**2) * squares / 2) * phase
    values = np.fft.ifftn(spectrum).real * np.prod(shape) / structure.volume
    return DensityData(
        kind=kind, level_of_theory="GGA", values=values, lattice=np.array(structure.lattice.matrix), provenance=None
    )


@pytest.fixture(scope="session")
def gaussian_density() -> MakeDensity:
    """The function :func:`gaussians`: ``gaussian_density(structure, shape, {"Na": (1, 0.5), ...}, kind="total")``."""
    return gaussians


@cache
def _json_schema(model: type[BaseModel]) -> dict[str, Any]:  # JSON of any shape
    return _original_json_schema(model)


@pytest.fixture
def mp_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder, without the user's settings for clients of the Materials Project."""
    for name in list(os.environ):
        if name.startswith(("MP_", "AWS_", "MPRESTER_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    # The client computes a schema again for every field of every request: 0.2 s each.
    monkeypatch.setattr(BaseModel, "model_json_schema", classmethod(_json_schema))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    return tmp_path
