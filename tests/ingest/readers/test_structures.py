from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core.structure import Structure
from pymatgen.io.cif import CifWriter
from pymatgen.io.vasp.inputs import Poscar

from ingest.readers.structures import read_structure
from registry.errors import InputError

CELL = Structure(2.8 * (np.ones((3, 3)) - np.eye(3)), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def write(path: Path, structure: Structure = CELL) -> Path:
    if ".cif" in path.name:
        text = str(CifWriter(structure))
    elif ".json" in path.name:
        text = json.dumps(structure.as_dict())
    else:
        text = Poscar(structure).get_str()
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize(
    "name", ["x.cif", "x.vasp", "x.poscar", "x.json", "POSCAR", "CONTCAR", "x_POSCAR", "x.cif.gz", "x.json.gz"]
)
def test_every_format(tmp_path: Path, name: str) -> None:
    found = read_structure(write(tmp_path / name))
    np.testing.assert_allclose(found.lattice.parameters, CELL.lattice.parameters, atol=1e-4)
    np.testing.assert_allclose(found.frac_coords, CELL.frac_coords, atol=1e-6)
    assert [site.species_string for site in found] == ["Na", "Cl"]


def test_site_properties_are_left_out(tmp_path: Path) -> None:
    rich = CELL.copy(site_properties={"magmom": [1.0, 2.0]})
    rich.add_oxidation_state_by_element({"Na": 1, "Cl": -1})
    assert read_structure(write(tmp_path / "x.json", rich)) == CELL
    assert read_structure(write(tmp_path / "x.json", rich)).site_properties == {}
    assert [site.species_string for site in read_structure(write(tmp_path / "x.cif", rich))] == ["Na", "Cl"]


@pytest.mark.parametrize("name", ["x.cif", "x.json"])
@pytest.mark.parametrize(
    "species", [{"Na": 0.5, "K": 0.5}, {"Na": 0.9}, {"Na+": 0.25, "K+": 0.75}], ids=["alloy", "vacancy", "ions"]
)
def test_partial_occupancy_is_refused(tmp_path: Path, name: str, species: dict[str, float]) -> None:
    disordered = Structure(CELL.lattice, ["Cl", species], CELL.frac_coords)
    with pytest.raises(InputError, match=rf"{name}: partial occupancy at site \d \(.*Na.*0"):
        read_structure(write(tmp_path / name, disordered))


def test_several_structures_in_a_cif_are_refused(tmp_path: Path) -> None:
    text = str(CifWriter(CELL))
    (tmp_path / "x.cif").write_text(text + text.replace("data_NaCl", "data_other"))
    with pytest.raises(InputError, match="contains 2 structures"):
        read_structure(tmp_path / "x.cif")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.cif", "", "cannot be read as a CIF"),
        ("x.cif", "this is not a crystal\nat all\n", "cannot be read as a CIF"),
        (
            "x.cif",
            "data_x\n_cell_length_a 4\n",
            r"x\.cif: cannot be read as a CIF file \(No structure parsed for section 1 in CIF: '_atom_site_label'\)$",
        ),
        ("x.vasp", "", "cannot be read as a POSCAR"),
        ("x.vasp", "title\n1.0\n1 0 0\n0 1 0\n", "cannot be read as a POSCAR"),
        ("POSCAR", "NoElements\n1.0\n4 0 0\n0 4 0\n0 0 4\n1\ndirect\n0 0 0\n", "element symbols"),
        ("x.json", "{", "not a JSON file"),
        ("x.json", "[1, 2]", "contains no pymatgen structure"),
        ("x.json", '{"lattice": {}, "sites": []}', "cannot be read as a pymatgen structure"),
        ("x.json", '{"a": 1}', "contains no pymatgen structure"),
        ("x.xyz", "", "the name is not that of a structure file"),
    ],
)
def test_message_of_an_unreadable_file_is_one_line(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        read_structure(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_dummies_and_binary_files_are_refused(tmp_path: Path) -> None:
    dummy = Structure(CELL.lattice, ["Na", "X"], CELL.frac_coords)
    with pytest.raises(InputError, match="site 2 contains 'X', which is not an element"):
        read_structure(write(tmp_path / "x.json", dummy))
    (tmp_path / "x.cif").write_bytes(bytes(range(256)))
    with pytest.raises(InputError, match="not a text file"):
        read_structure(tmp_path / "x.cif")
    with pytest.raises(InputError, match=r"absent\.cif: cannot be read"):
        read_structure(tmp_path / "absent.cif")
