from __future__ import annotations

import gzip
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from pymatgen.core.structure import Structure
from pymatgen.io.common import VolumetricData
from pymatgen.io.vasp.outputs import Chgcar

from ingest.densities.checks import check_density
from ingest.readers.cube import BOHR, read_cube
from ingest.readers.densities import read_densities
from ingest.readers.vasp import read_vasp
from registry.crystals import DensityData
from registry.errors import InputError

Make = Callable[..., DensityData]
CELL = Structure(2.8 * (np.ones((3, 3)) - np.eye(3)), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
SHAPE = (12, 14, 16)  # three numbers: a transposed grid would show
TOTAL = {"Na": (1.0, 0.5), "Cl": (7.0, 0.6)}
ATOMS = {"Na": (1.2, 0.8), "Cl": (6.8, 0.6)}
SPIN = {"Na": (0.0, 0.5), "Cl": (0.5, 0.6)}


def check_all(densities: Sequence[DensityData], structure: Structure) -> None:
    """Check each density of a file, and compare those of spin and deformation with the electrons of the total one."""
    total = next(density for density in densities if density.kind == "total")
    for density in densities:
        check_density(density, structure, electrons=None if density is total else total.n_electrons)


@pytest.fixture
def total(gaussian_density: Make) -> DensityData:
    return gaussian_density(CELL, SHAPE, TOTAL)


def write_chgcar(path: Path, *grids: DensityData, augmentation: bool = False) -> Path:
    """Write a CHGCAR with pymatgen, rho x V; ``augmentation`` adds PAW blocks in VASP's format."""
    names = ("total", "diff", "diff_y", "diff_z") if len(grids) < 3 else ("total", "diff_x", "diff_y", "diff_z")
    data = {name: grid.values * grid.volume for name, grid in zip(names, grids, strict=False)}
    aug = {name: {1: np.arange(8.0), 2: np.linspace(-1, 1, 7)} for name in data} if augmentation else None
    Chgcar(CELL, data, data_aug=aug).write_file(path)
    if augmentation and len(grids) == 2:
        # VASP writes the atoms' starting moments before the second grid; pymatgen does not.
        text = path.read_text()
        dimensions = "   {}   {}   {}\n".format(*SHAPE)
        head, first, second = text.split(dimensions)
        path.write_text(f"{head}{dimensions}{first} 0.10000000000E+01 0.50000000000E+00\n{dimensions}{second}")
    return path


def write_cube(
    path: Path, structure: Structure, values: NDArray[Any], *, unit: float = BOHR, origin: tuple[float, ...] = (0, 0, 0)
) -> Path:
    """Write a cube file: lengths in Bohr (or Å with negative counts), values in e/Bohr^3."""
    sign = 1 if unit == BOHR else -1
    lines = ["title", "made for a test", "{:5d} {:12.6f} {:12.6f} {:12.6f}".format(len(structure), *origin)]
    for axis, points in zip(structure.lattice.matrix, values.shape, strict=True):
        lines.append("{:5d} {:18.12f} {:18.12f} {:18.12f}".format(sign * points, *(axis / points / unit)))
    for site in structure:
        place = site.coords / unit + np.array(origin)
        lines.append("{:5d} {:12.6f} {:18.12f} {:18.12f} {:18.12f}".format(site.specie.Z, 0.0, *place))
    for row in (values * BOHR**3).reshape(-1, values.shape[2]):
        lines += [" ".join(f"{v:16.9E}" for v in row[i : i + 6]) for i in range(0, len(row), 6)]
    path.write_text("\n".join(lines) + "\n")
    return path


def write_hdf5(path: Path, grids: dict[str, NDArray[Any]], **attributes: Any) -> Path:
    VolumetricData(CELL, {name: grid * CELL.volume for name, grid in grids.items()}).to_hdf5(path)
    with h5py.File(path, "a") as file:
        file.attrs.update(attributes)
    return path


def pack(path: Path) -> Path:
    packed = path.with_name(path.name + ".gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    return packed


# --- VASP


@pytest.mark.parametrize("augmentation", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_chgcar(tmp_path: Path, total: DensityData, augmentation: bool, packed: bool) -> None:
    path = write_chgcar(tmp_path / "CHGCAR", total, augmentation=augmentation)
    structure, (density,) = read_densities(pack(path) if packed else path)
    assert structure == CELL
    assert (density.kind, density.level_of_theory, density.provenance) == ("total", "unspecified", "VASP CHGCAR")
    np.testing.assert_allclose(density.values, total.values, atol=1e-9)
    np.testing.assert_allclose(density.lattice, CELL.lattice.matrix, atol=1e-6)
    assert density.n_electrons == pytest.approx(8.0, abs=1e-6)
    check_density(density, structure)


@pytest.mark.parametrize("augmentation", [False, True])
def test_spin_polarised_chgcar(tmp_path: Path, total: DensityData, gaussian_density: Make, augmentation: bool) -> None:
    spin = gaussian_density(CELL, SHAPE, SPIN)
    path = write_chgcar(tmp_path / "mp-1_CHGCAR", total, spin, augmentation=augmentation)
    structure, densities = read_densities(path, level_of_theory="PBE+U")
    assert [density.kind for density in densities] == ["total", "spin"]
    assert {density.level_of_theory for density in densities} == {"GGA+U"}
    np.testing.assert_allclose(densities[1].values, spin.values, atol=1e-9)
    assert densities[1].n_electrons == pytest.approx(0.5, abs=1e-6)
    check_all(densities, structure)


def test_non_collinear_chgcar_has_no_single_spin_density(tmp_path: Path, total: DensityData) -> None:
    path = write_chgcar(tmp_path / "CHGCAR", total)
    text = path.read_text()
    grid = text[text.index("   {}   {}   {}\n".format(*SHAPE)) :]
    path.write_text(text + 3 * grid)
    assert [density.kind for density in read_densities(path)[1]] == ["total"]
    path.write_text(text + 2 * grid)
    with pytest.raises(InputError, match="contains 3 grids"):
        read_densities(path)


@pytest.mark.parametrize("packed", [False, True])
def test_reference_beside_a_chgcar_gives_the_deformation(
    tmp_path: Path, total: DensityData, gaussian_density: Make, packed: bool
) -> None:
    atoms = gaussian_density(CELL, SHAPE, ATOMS)
    path = write_chgcar(tmp_path / "CHGCAR", total)
    reference = write_chgcar(tmp_path / "CHGCAR.reference", atoms, augmentation=True)
    if packed:
        path, reference = pack(path), pack(reference)
    structure, densities = read_densities(path)
    assert [density.kind for density in densities] == ["total", "deformation"]
    np.testing.assert_allclose(densities[1].values, total.values - atoms.values, atol=1e-9)
    assert densities[1].n_electrons == pytest.approx(0.0, abs=1e-6)
    assert densities[1].provenance == "VASP CHGCAR minus CHGCAR.reference"
    check_all(densities, structure)
    moved = reference.rename(tmp_path / ("atoms_CHGCAR.gz" if packed else "atoms_CHGCAR"))
    assert len(read_densities(path)[1]) == 1
    assert len(read_densities(path, reference=moved)[1]) == 2


def test_reference_of_another_grid_or_crystal_is_refused(
    tmp_path: Path, total: DensityData, gaussian_density: Make
) -> None:
    path = write_chgcar(tmp_path / "CHGCAR", total)
    write_chgcar(tmp_path / "CHGCAR.reference", gaussian_density(CELL, (12, 12, 12), ATOMS))
    with pytest.raises(InputError, match=r"CHGCAR\.reference has a grid of \(12, 12, 12\), CHGCAR one of"):
        read_densities(path)
    dimensions = "   {}   {}   {}\n".format(*SHAPE)
    head, grid = path.read_text().split(dimensions)
    for old, new, message in (("Cl", "Br", "different atoms"), ("2.8", "2.9", "different cells")):
        (tmp_path / "CHGCAR.reference").write_text(head.replace(old, new) + dimensions + grid)
        with pytest.raises(InputError, match=message):
            read_densities(path)


def test_truncated_chgcar_is_refused(tmp_path: Path, total: DensityData, gaussian_density: Make) -> None:
    spin = gaussian_density(CELL, SHAPE, SPIN)
    path = write_chgcar(tmp_path / "CHGCAR", total, spin, augmentation=True)
    lines = path.read_bytes().splitlines(keepends=True)
    whole = [density.values for density in read_densities(path)[1]]
    assert len(whole) == 2
    # Cut after any line: only the end of a block that nothing follows could look whole.
    rng = np.random.default_rng(0)
    second = max(i for i, line in enumerate(lines) if line.split() == [b"12", b"14", b"16"])
    first = min(i for i, line in enumerate(lines) if line.split() == [b"12", b"14", b"16"])
    augmented = [i for i, line in enumerate(lines) if line.startswith(b"augmentation") and i < second]
    cuts = {
        *rng.integers(1, first, 3),
        *rng.integers(first + 1, augmented[0], 8),
        augmented[0] + 1,
        augmented[1],
        augmented[1] + 1,
    }
    cuts |= {second, second + 1, *rng.integers(second + 2, len(lines) - 10, 8)}
    for cut in sorted(cuts):
        path.write_bytes(b"".join(lines[:cut]))
        with pytest.raises(InputError, match="CHGCAR") as caught:
            read_densities(path)
        assert "\n" not in str(caught.value), cut
    # Cut in the middle of a line, here of the last number.
    path.write_bytes(b"".join(lines)[:-8])
    with pytest.raises(InputError, match="middle of a line"):
        read_densities(path)


def test_truncated_or_damaged_gzip_is_refused(tmp_path: Path, total: DensityData) -> None:
    path = pack(write_chgcar(tmp_path / "CHGCAR", total))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"CHGCAR\.gz: the gzip stream ends too early"):
        read_densities(path)
    path.write_bytes(data[:1000] + bytes(100) + data[1100:])
    with pytest.raises(InputError, match=r"CHGCAR\.gz: damaged gzip file"):
        read_densities(path)
    path.write_bytes(b"plain text")
    with pytest.raises(InputError, match=r"CHGCAR\.gz: damaged gzip file"):
        read_densities(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("   12   14   16", "   12   14", "no grid dimensions"),
        ("   12   14   16", "   12   14   15", "CHGCAR"),
        ("   12   14   16", "   12   14   17", "of 2856 values"),
        ("Na   Cl   \n", "", "element symbols"),
        ("E+0", "E*0", "not a number"),
        ("1.00000000000000", "one", "cannot be read as a POSCAR"),
        ("Direct", "", "CHGCAR: "),
        ("\n \n", "\n", "no empty line"),
    ],
)
def test_message_of_a_damaged_chgcar_is_one_line(
    tmp_path: Path, total: DensityData, old: str, new: str, message: str
) -> None:
    path = write_chgcar(tmp_path / "CHGCAR", total)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=message) as caught:
        read_densities(path)
    assert "\n" not in str(caught.value)


def test_binary_chgcar_is_refused_and_a_title_in_another_encoding_is_read(tmp_path: Path, total: DensityData) -> None:
    path = write_chgcar(tmp_path / "CHGCAR", total)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"VolumetricData", "Gitter in Å".encode("latin-1")))
    assert read_densities(path)[0] == CELL
    path.write_bytes(bytes(range(256)) * 8 + b"\n\n1 2 3\n")
    with pytest.raises(InputError, match="CHGCAR"):
        read_densities(path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match="CHGCAR"):
        read_densities(path)


def test_nan_in_a_chgcar_is_refused_by_the_check(tmp_path: Path, total: DensityData) -> None:
    path = write_chgcar(tmp_path / "CHGCAR", total)
    lines = path.read_text().splitlines()
    lines[20] = "NaN " + " ".join(lines[20].split()[1:])
    path.write_text("\n".join(lines) + "\n")
    structure, densities = read_densities(path)
    with pytest.raises(InputError, match="1 of 2688 values that are not finite"):
        check_all(densities, structure)


def test_values_equal_those_of_pymatgen(tmp_path: Path, total: DensityData) -> None:
    path = write_chgcar(tmp_path / "CHGCAR", total, total, augmentation=True)
    theirs = Chgcar.from_file(str(path))
    _, blocks = read_vasp(path)
    np.testing.assert_allclose(blocks["total"] * CELL.volume, theirs.data["total"], rtol=1e-12)
    np.testing.assert_allclose(blocks["spin"] * CELL.volume, theirs.data["diff"], rtol=1e-12)


# --- cube


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("unit", [BOHR, 1.0])
def test_cube(tmp_path: Path, total: DensityData, unit: float, packed: bool) -> None:
    path = write_cube(tmp_path / "x.cube", CELL, total.values, unit=unit)
    structure, (density,) = read_densities(pack(path) if packed else path)
    assert density.kind == "total"
    assert density.n_electrons == pytest.approx(8.0, abs=1e-6)
    np.testing.assert_allclose(density.values, total.values, atol=1e-8)
    np.testing.assert_allclose(structure.lattice.matrix, CELL.lattice.matrix, atol=1e-8)
    np.testing.assert_allclose(structure.frac_coords, CELL.frac_coords, atol=1e-8)
    check_density(density, structure)


def test_origin_of_a_cube_becomes_that_of_the_cell(tmp_path: Path, total: DensityData) -> None:
    structure, values = read_cube(write_cube(tmp_path / "x.cube", CELL, total.values, origin=(1.5, -2.0, 0.25)))
    np.testing.assert_allclose(structure.frac_coords, CELL.frac_coords, atol=1e-8)
    np.testing.assert_allclose(values, total.values, atol=1e-8)


def test_cubes_beside_a_cube(tmp_path: Path, total: DensityData, gaussian_density: Make) -> None:
    path = write_cube(tmp_path / "x.cube", CELL, total.values)
    spin = gaussian_density(CELL, SHAPE, SPIN)
    pack(write_cube(tmp_path / "x.spin.cube", CELL, spin.values))
    atoms = gaussian_density(CELL, SHAPE, ATOMS)
    write_cube(tmp_path / "x.reference.cube", CELL, atoms.values)
    structure, densities = read_densities(path)
    assert [density.kind for density in densities] == ["total", "spin", "deformation"]
    np.testing.assert_allclose(densities[2].values, total.values - atoms.values, atol=1e-8)
    check_all(densities, structure)
    _, (alone,) = read_densities(tmp_path / "x.spin.cube.gz")
    assert alone.kind == "spin"
    write_cube(tmp_path / "x.deformation.cube", CELL, np.zeros((12, 12, 12)))
    with pytest.raises(InputError, match=r"x\.deformation\.cube has a grid of \(12, 12, 12\)"):
        read_densities(path)


@pytest.mark.parametrize(
    ("line", "text", "message"),
    [
        (2, "-2 0 0 0", "orbitals"),
        (2, "2 0 0 0 3", "several values per point"),
        (2, "0 0 0 0", "without atoms"),
        (2, "two 0 0 0", "incomplete cube header"),
        (2, "2 0 0", "without atoms, points or axes"),
        (3, "-12 0 0.1 0.1", "both signs"),
        (3, "0 0 0.1 0.1", "without atoms, points"),
        (3, "12 0 0 0", "span no volume"),
        (6, "0 0 0 0 0", "are not those of elements"),
        (6, "11.5 0 0 0 0", "are not those of elements"),
        (9, "1 2 3", "of 2688 values"),
        (9, "1 2 3 4 5 x", "not a number"),
    ],
)
def test_message_of_a_damaged_cube_is_one_line(
    tmp_path: Path, total: DensityData, line: int, text: str, message: str
) -> None:
    path = write_cube(tmp_path / "x.cube", CELL, total.values)
    lines = path.read_text().splitlines()
    lines[line] = text
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match=message) as caught:
        read_densities(path)
    assert "\n" not in str(caught.value)


def test_truncated_cube_is_refused(tmp_path: Path, total: DensityData) -> None:
    path = write_cube(tmp_path / "x.cube", CELL, total.values)
    data = path.read_bytes()
    for part in (0.999, 0.5, 0.02, 0.003):
        path.write_bytes(data[: int(len(data) * part)])
        with pytest.raises(InputError, match=r"x\.cube: has"):
            read_densities(path)


# --- HDF5


def test_hdf5(tmp_path: Path, total: DensityData, gaussian_density: Make) -> None:
    spin = gaussian_density(CELL, SHAPE, SPIN).values
    deformation = total.values - gaussian_density(CELL, SHAPE, ATOMS).values
    stated = "GPAW 22.8 PBE plane waves 400 eV, k-points 4x4x4"
    path = write_hdf5(
        tmp_path / "x.h5",
        {"total": total.values, "diff": spin, "deformation": deformation},
        level_of_theory=stated,
        n_electrons=8.0,
    )
    structure, densities = read_densities(path)
    assert [density.kind for density in densities] == ["total", "spin", "deformation"]
    for density, expected in zip(densities, (total.values, spin, deformation), strict=True):
        np.testing.assert_allclose(density.values, expected, atol=1e-12)
        assert (density.level_of_theory, density.provenance) == ("GGA", stated)
    check_all(densities, structure)
    assert read_densities(path, level_of_theory="r2SCAN")[1][0].level_of_theory == "r2SCAN"


def test_hdf5_keeps_single_precision_and_needs_no_attributes(tmp_path: Path, total: DensityData) -> None:
    path = write_hdf5(tmp_path / "x.hdf5", {"total": total.values})
    with h5py.File(path, "a") as file:
        data = file["vdata/total"][()].astype("f4")
        del file["vdata/total"]
        file["vdata/total"] = data
    _, (density,) = read_densities(path)
    assert density.values.dtype == np.float32
    assert (density.level_of_theory, density.provenance) == ("unspecified", None)


def test_hdf5_with_another_number_of_electrons_is_refused(tmp_path: Path, total: DensityData) -> None:
    path = write_hdf5(tmp_path / "x.h5", {"total": total.values}, n_electrons=9.0)
    with pytest.raises(InputError, match=r"x\.h5: total density contains 8\.000 electrons, its source states 9\.000"):
        read_densities(path)
    path = write_hdf5(tmp_path / "y.h5", {"total": total.values}, n_electrons="many")
    with pytest.raises(InputError, match="not a number"):
        read_densities(path)


@pytest.mark.parametrize("way", ["group", "data set", "soft", "dangling", "raw", "virtual"])
def test_hdf5_links_to_other_files_are_refused(tmp_path: Path, total: DensityData, way: str) -> None:
    other = write_hdf5(tmp_path / "other.h5", {"total": total.values})
    path = write_hdf5(tmp_path / "x.h5", {"total": total.values})
    with h5py.File(path, "a") as file:
        del file["vdata/total"]
        if way == "group":
            del file["vdata"]
            file["vdata"] = h5py.ExternalLink(str(other), "/vdata")
        elif way == "data set":
            file["vdata/total"] = h5py.ExternalLink(str(other), "/vdata/total")
        elif way == "soft":
            file["out"] = h5py.ExternalLink(str(other), "/")
            file["vdata/total"] = h5py.SoftLink("/out/vdata/total")
        elif way == "dangling":
            file["vdata/total"] = h5py.ExternalLink("absent.h5", "/vdata/total")
        elif way == "raw":
            file["vdata"].create_dataset("total", SHAPE, "f8", external=[(str(other), 0, 8 * int(np.prod(SHAPE)))])
        else:
            layout = h5py.VirtualLayout(SHAPE, "f8")
            layout[...] = h5py.VirtualSource(str(other), "vdata/total", SHAPE)
            file["vdata"].create_virtual_dataset("total", layout)
    with pytest.raises(InputError, match=r"x\.h5: '(vdata|total)' is a link or is stored in another file"):
        read_densities(path)


def test_message_of_a_damaged_or_foreign_hdf5_is_one_line(tmp_path: Path, total: DensityData) -> None:
    whole = write_hdf5(tmp_path / "whole.h5", {"total": total.values}).read_bytes()
    path = tmp_path / "x.h5"
    for content in (b"no HDF5 at all", b"", whole[: len(whole) // 2], whole[:600]):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"x\.h5: damaged or not an HDF5 file") as caught:
            read_densities(path)
        assert "\n" not in str(caught.value)
    path.unlink()
    with h5py.File(path, "w") as file:
        file["density"] = np.zeros((4, 4, 4))
    with pytest.raises(InputError, match="not in pymatgen's layout"):
        read_densities(path)
    with pytest.raises(InputError, match="no such file"):
        read_densities(tmp_path / "absent.h5")
    for attribute, message in (("{}", "structure_json cannot be read"), ("[", "structure_json cannot be read")):
        write_hdf5(path, {"total": total.values}, structure_json=attribute)
        with pytest.raises(InputError, match=message):
            read_densities(path)
    write_hdf5(path, {"potential": total.values})
    with pytest.raises(InputError, match="contains none of total, diff, deformation"):
        read_densities(path)
    with h5py.File(write_hdf5(path, {"total": total.values}), "a") as file:
        del file["vdata/total"]
        file["vdata/total"] = total.values[0]
    with pytest.raises(InputError, match="a real grid is needed"):
        read_densities(path)


# --- names


def test_other_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"density\.txt: the name is not that of a density file"):
        read_densities(tmp_path / "density.txt")
    with pytest.raises(InputError, match="cannot be read"):
        read_densities(tmp_path / "CHGCAR")
