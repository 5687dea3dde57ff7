"""Generator of the tables of free atoms; a maintainer runs it, the project itself never does.

It needs the radial solver of GPAW 22.8 (Debian package ``gpaw``, or PyPI) for the calculations, and
pymatgen's statistics of POTCAR files for the number of valence electrons of each pseudopotential.
The rest of the package does not import GPAW.

    cd ingest/free_atoms
    python3 -c "import generate; generate.write_atoms()"     (needs gpaw; writes atoms.npz and atoms.json)
    python3 -c "import generate; generate.write_valences()"  (needs pymatgen; writes valences.json)
    python3 -c "import generate; generate.write_setups()"    (needs gpaw; adds GPAW's numbers to valences.json)
"""

from __future__ import annotations

import bz2
import gzip
import json
import logging
import re
from collections import defaultdict
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["write_atoms", "write_setups", "write_valences"]

_log = logging.getLogger("ingest")

FOLDER = Path(__file__).parent
BOHR = 0.529177210903  # [Å], CODATA 2018
LAST = 96  # Cm
DEEPEST = -8.0
"""Energy below which shells are core in every published pseudopotential [Ha]."""
RADIUS = 16.0
"""Outermost grid point [Å]; the 6s shell of Cs has decayed to 1e-10 there."""
POINTS = 320
STRETCH = 7.0
SMALLEST = 1e-12

# Pseudopotentials of type Nd_3 keep n - 1 electrons of the free atom's 4f^n 6s^2 in the core.
HEAVY_LANTHANIDES = (65, 71)
STEP_OF_F = 0.125
TRIVALENT = ("Pr", "Nd", "Pm", "Sm", "Eu", "Tb", "Dy", "Ho", "Er", "Tm", "Yb")


def write_atoms() -> None:
    """Calculate every atom and write ``atoms.npz`` (shells) and ``atoms.json`` (their names and occupations).

    PBE, scalar-relativistic, spherical, not spin-polarised, occupations of the ground state.
    Atoms that are already in the files are kept; delete the files to recalculate all atoms.
    """
    configurations = import_module("gpaw.atom.configurations").configurations
    symbols = {number: symbol for symbol, (number, _) in configurations.items()}
    x = np.linspace(0.0, 1.0, POINTS)
    arrays: dict[str, NDArray[Any]] = {"r": RADIUS * np.expm1(STRETCH * x) / np.expm1(STRETCH)}
    about: dict[str, Any] = {
        "made_with": f"GPAW {import_module('gpaw').__version__} gpaw.atom.all_electron",
        "method": "PBE, scalar-relativistic, spherical, spin-paired",
        "r": f"{RADIUS:g} expm1({STRETCH:g} x) / expm1({STRETCH:g}), x = 0 to 1 in {POINTS} points [Angstrom]",
        "table": "per shell u(r)^2 of one electron [1/Angstrom], its integral is 1",
        "shells": "name, occupation, eigenvalue [Ha]",
        "atoms": {},
    }
    if (FOLDER / "atoms.npz").exists():
        about["atoms"] = json.loads((FOLDER / "atoms.json").read_text(encoding="utf-8"))["atoms"]
        with np.load(FOLDER / "atoms.npz") as made:
            arrays |= {name: made[name] for name in about["atoms"]}
    for number in range(1, LAST + 1):
        symbol = symbols[number]
        for name in [symbol, *([f"{symbol}_3"] if symbol in TRIVALENT else [])]:
            if name in arrays:
                continue
            shells, table = _calculate(number, arrays["r"], trivalent=name != symbol)
            arrays[name] = table
            about["atoms"][name] = {"element": symbol, "shells": shells}
            _log.info("%s: %s", name, " ".join(f"{shell}{occupation:g}" for shell, occupation, _ in shells))
            np.savez_compressed(FOLDER / "atoms.npz", **arrays)  # type: ignore[arg-type]
            _write_json(FOLDER / "atoms.json", about)


def write_valences() -> None:
    """Write ``valences.json``: valence electrons per element in published sets of pseudopotentials."""
    folder = Path(import_module("pymatgen.io.vasp").__file__ or "").parent
    with bz2.open(folder / "potcar-summary-stats.json.bz2", "rt", encoding="utf-8") as file:
        statistics = json.load(file)
    load = import_module("yaml").safe_load
    conventions: dict[str, dict[str, int]] = {}
    for name, functional in (("MPRelaxSet", "PBE"), ("MPSCANRelaxSet", "PBE_54")):
        chosen = load((folder / f"{name}.yaml").read_text(encoding="utf-8"))["POTCAR"]
        by_symbol = {entry["symbol"]: entry["ZVAL"] for group in statistics[functional].values() for entry in group}
        conventions[name] = {element: int(by_symbol[symbol]) for element, symbol in sorted(chosen.items())}
    published: dict[str, set[int]] = defaultdict(set)
    for functional in ("PBE", "PBE_52", "PBE_54", "PBE_64"):
        for group in statistics[functional].values():
            for entry in group:
                element = entry["symbol"].partition("_")[0].partition(".")[0]
                # Without fractional hydrogens and pymatgen's test files.
                if len(element) <= 2 and float(entry["ZVAL"]).is_integer():
                    published[element].add(int(entry["ZVAL"]))
    _write_json(
        FOLDER / "valences.json",
        {"conventions": conventions, "published": {element: sorted(v) for element, v in sorted(published.items())}},
    )


def write_setups() -> None:
    """Add the valence electrons of GPAW's default data sets to ``valences.json``."""
    paths = import_module("gpaw").setup_paths
    counts = {}
    for folder in map(Path, paths):
        for path in sorted(folder.glob("*.PBE.gz")):
            element = path.name.removesuffix(".PBE.gz")
            if element.isalpha() and element not in counts:
                header = gzip.decompress(path.read_bytes())[:4000].decode("utf-8")
                counts[element] = round(float(re.findall(r'<atom[^>]* valence="([0-9.]+)"', header)[0]))
    content = json.loads((FOLDER / "valences.json").read_text(encoding="utf-8"))
    content["conventions"]["GPAW"] = counts
    _write_json(FOLDER / "valences.json", content)


@cache
def _converged(number: int, moved: float) -> Any:
    """A converged atom, with ``moved`` of a lanthanide's 4f electrons moved to 5d.

    The heavy lanthanides start from the orbitals of the preceding element (GPAW's first guess has no
    bound 4f shell for them), and reach their ground state in small steps from the trivalent one.
    """
    configurations = import_module("gpaw.atom.configurations").configurations
    symbol = next(symbol for symbol, (found, _) in configurations.items() if found == number)
    atom = import_module("gpaw.atom.all_electron").AllElectron(
        symbol, xcname="PBE", scalarrel=True, txt=None, gpernode=200 if symbol == "Pa" else 150
    )  # Pa does not converge on GPAW's usual 150 points per node
    heavy = HEAVY_LANTHANIDES[0] <= number <= HEAVY_LANTHANIDES[1]
    if (5, 2) not in zip(atom.n_j, atom.l_j, strict=True) and (moved or heavy):
        f_shell = list(zip(atom.n_j, atom.l_j, strict=True)).index((4, 3))
        atom.f_j[f_shell] -= moved
        for values, value in ((atom.n_j, 5), (atom.l_j, 2), (atom.f_j, moved), (atom.e_j, -0.1)):
            values.insert(f_shell + 1, value)
    if heavy:
        if symbol in TRIVALENT and moved < 1:
            initial = _converged(number, moved + STEP_OF_F)
        else:  # Gd and Lu have a 5d electron in the ground state
            initial = _converged(number - 1, 1.0 if number > HEAVY_LANTHANIDES[0] else 0.0)
        orbitals = dict(zip(zip(initial.n_j, initial.l_j, strict=True), initial.u_j, strict=True))
        energies = dict(zip(zip(initial.n_j, initial.l_j, strict=True), initial.e_j, strict=True))

        def start() -> None:
            for j, shell in enumerate(zip(atom.n_j, atom.l_j, strict=True)):
                atom.u_j[j] = orbitals[shell]
                atom.e_j[j] = energies[shell]

        atom.initialize_wave_functions = start
    atom.run()
    return atom


def _calculate(number: int, radii: NDArray[Any], *, trivalent: bool) -> tuple[list[Any], NDArray[np.float32]]:
    spline = import_module("scipy.interpolate").CubicSpline
    atom = _converged(number, 1.0 if trivalent else 0.0)
    symbol = atom.symbol
    shells, table = [], []
    for n, angular, occupation, energy, u in zip(atom.n_j, atom.l_j, atom.f_j, atom.e_j, atom.u_j, strict=True):
        if not occupation or (energy < DEEPEST and len(atom.n_j) > 1):
            continue
        wave = spline(np.asarray(atom.r) * BOHR, u)(np.minimum(radii, atom.r[-1] * BOHR))
        squares = np.where(radii < atom.r[-1] * BOHR, wave**2 / BOHR, 0.0)
        squares[squares < SMALLEST] = 0.0
        dense = np.linspace(0.0, RADIUS, 64001)
        norm = float(spline(radii, squares)(dense)[1:].sum() * dense[1])  # both ends are 0
        if abs(norm - 1) > 1e-3:
            raise RuntimeError(f"{symbol} {n}{'spdf'[angular]}: norm {norm} on the stored grid")
        shells.append([f"{n}{'spdf'[angular]}", occupation, round(float(energy), 6)])
        table.append(squares / norm)
    return shells, np.array(table, dtype=np.float32)


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
