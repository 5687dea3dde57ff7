"""Ingest of materials: properties, densities, texts, revisions, and incomplete documents."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Engine, func, select, text
from sqlalchemy.orm import Session

from ingest.sources.mp.source import MpSelection
from registry.files.grids import GridStore
from registry.models import Crystal, CrystalRevision, Description, IngestRun, PropertyValue, SliceImage
from tests.ingest.sources.mp.conftest import (
    PLAIN,
    IngestMaterials,
    MakeSource,
    densities_of,
    outcomes,
    values_of,
)
from tests.ingest.sources.mp_standin import KEY, RELEASE, Standin, chgcar_object, rock_salt


def test_materials_are_ingested_with_properties_densities_texts_and_slices(
    run: IngestMaterials, standin: Standin, session: Session, home: Path
) -> None:
    report = run()
    assert report.counts == {"created": 3}
    assert values_of(session, "mp-1") == {
        "formation_energy_per_atom": (-1.001, "GGA_GGA+U_R2SCAN"),
        "energy_above_hull": (0.0, "GGA_GGA+U_R2SCAN"),
        "efermi": (2.01, "GGA"),
        "band_gap": (5.0, "GGA"),
        "total_magnetization": (0.0, "GGA"),
        "k_vrh": (30.0, "GGA"),
        "g_vrh": (15.0, "GGA"),
    }
    assert set(session.scalars(select(PropertyValue.source_release))) == {RELEASE}
    assert session.scalars(select(IngestRun.source_release)).all() == [RELEASE]
    assert set(densities_of(session, "mp-1")) == {"total", "deformation"}
    spin = densities_of(session, "mp-2")
    assert spin["total"].n_electrons == pytest.approx(10)
    assert spin["spin"].n_electrons == pytest.approx(1)
    assert spin["deformation"].n_electrons == pytest.approx(0, abs=1e-9)
    assert set(session.scalars(select(Description.generator_version))) == {"0.2.11"}
    assert session.scalar(select(func.count()).select_from(SliceImage)) == 3
    values, _ = GridStore((home / "grids").as_uri()).get(spin["total"].uri, spin["total"].sha256)
    assert values.shape == (12, 12, 12)


def test_density_stores_the_atoms_of_its_own_cell(run: IngestMaterials, session: Session, home: Path) -> None:
    """The positions of the atoms in a grid must come from a structure in the same cell."""
    run()
    assert densities_of(session, "mp-1")["total"].structure is None  # the cell of the stored structure
    other = densities_of(session, "mp-3")
    from pymatgen.core.structure import Structure

    own = Structure.from_dict(other["total"].structure)
    assert len(own) == 8
    assert other["deformation"].structure == other["total"].structure
    grid, lattice = GridStore((home / "grids").as_uri()).get(other["total"].uri, other["total"].sha256)
    np.testing.assert_allclose(lattice, own.lattice.matrix, atol=1e-6)
    peaks = [grid[tuple(np.rint(site.frac_coords * grid.shape).astype(int) % grid.shape)] for site in own]
    assert min(peaks) > 3 * grid.mean()


def test_density_stores_its_origin(run: IngestMaterials, standin: Standin, session: Session) -> None:
    import hashlib

    run()
    data = standin.materials["mp-1"].objects["mp-2000001"]
    assert densities_of(session, "mp-1")["total"].origin == {
        "task_id": "mp-2000001",
        "bucket": "materialsproject-parsed",
        "key": "chgcars/mp-2000001.json.gz",
        "etag": hashlib.md5(data).hexdigest(),
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
    }


def test_few_requests_and_no_repeated_ones(run: IngestMaterials, standin: Standin) -> None:
    run()
    first = [path for _, path, _ in standin.log]
    assert first.count("/heartbeat") == 3  # one of ours, two of the client
    assert len(standin.requests("/summary/")) == 2  # one page, one count
    assert (
        len(standin.requests("/core/")) == len(standin.requests("/tasks/")) == len(standin.requests("/robocrys/")) == 1
    )
    assert sorted(standin.requested_objects()) == ["mp-2000001", "mp-2000002", "mp-2000003"]
    assert standin.leaks == []

    standin.log.clear()
    again = run()
    assert again.counts == {"unchanged": 3}
    assert {path for _, path, _ in standin.log} == {"/heartbeat", "/materials/summary/"}


def test_new_release_with_equal_values_downloads_nothing(run: IngestMaterials, standin: Standin) -> None:
    run()
    standin.log.clear()
    standin.release = "2026.01.01"
    for one in standin.materials.values():
        one.summary["last_updated"] = "2026-01-01T00:00:00"
    assert run().counts == {"unchanged": 3}
    assert standin.requested_objects() == []
    assert len(standin.requests("/tasks/")) == 1  # another calculation might be the newest now


def test_changed_value_makes_a_new_revision(run: IngestMaterials, standin: Standin, session: Session) -> None:
    run()
    standin.materials["mp-2"].summary["efermi"] = -1.25
    assert run().counts == {"updated": 1, "unchanged": 2}
    assert values_of(session, "mp-2")["efermi"] == (-1.25, "GGA")


def test_slice_does_not_depend_on_the_cell_of_the_density(
    run: IngestMaterials, standin: Standin, session: Session
) -> None:
    run()
    pixels = "SELECT s.pixels FROM slice_images s JOIN crystal_revisions r ON r.id = s.revision_id AND r.is_current"
    cube = bytes(session.scalar(text(f"{pixels} JOIN crystals c ON c.id = r.crystal_id AND c.source_id = 'mp-3'")))
    session.rollback()
    third = standin.materials["mp-3"]
    third.objects["mp-2000003"] = chgcar_object(third.structure, 12)
    third.calc_types["mp-2000004"] = "GGA Static"  # a newer calculation, in the primitive cell
    third.updated["mp-2000004"] = "2026-01-01T00:00:00"
    third.summary["last_updated"] = "2026-01-02T00:00:00"
    third.objects["mp-2000004"] = third.objects.pop("mp-2000003")
    assert run().counts == {"updated": 1, "unchanged": 2}
    primitive = bytes(session.scalar(text(f"{pixels} JOIN crystals c ON c.id = r.crystal_id AND c.source_id = 'mp-3'")))
    one, other = (np.frombuffer(data, "<f4") for data in (cube, primitive))
    np.testing.assert_allclose(one, other, atol=1e-4 * np.abs(other).max())


def test_density_of_another_functional_keeps_its_own_cell(
    run: IngestMaterials, standin: Standin, session: Session, home: Path
) -> None:
    one = standin.materials["mp-1"]
    larger = one.structure.copy()
    larger.scale_lattice(one.structure.volume * 1.07)
    one.objects["mp-2000001"] = chgcar_object(larger, 12)
    assert run().counts == {"created": 3}
    density = densities_of(session, "mp-1")["total"]
    _, lattice = GridStore((home / "grids").as_uri()).get(density.uri, density.sha256)
    np.testing.assert_allclose(lattice, larger.lattice.matrix)
    assert density.n_electrons == pytest.approx(10)
    volume = session.scalar(
        select(CrystalRevision.volume).join(Crystal).where(Crystal.source_id == "mp-1", CrystalRevision.is_current)
    )
    assert volume == pytest.approx(one.structure.volume)


def test_density_of_another_crystal_is_left_out(run: IngestMaterials, standin: Standin, session: Session) -> None:
    standin.materials["mp-1"].objects["mp-2000001"] = chgcar_object(rock_salt("Mg", "O", 4.2), 12)
    assert run().counts == {"created": 2, "partial": 1}
    assert "they do not belong together" in str(outcomes(session)["mp-1"][1])


def test_listed_density_may_be_missing(run: IngestMaterials, standin: Standin, session: Session) -> None:
    standin.materials["mp-1"].summary["has_props"] = {"charge_density": True}
    standin.materials["mp-1"].objects.clear()
    report = run()
    assert report.counts == {"created": 2, "partial": 1}
    assert report.retried == 0
    assert "no density object: chgcars/mp-2000001.json.gz" in str(outcomes(session)["mp-1"][1])
    # This is final: no further request.
    standin.log.clear()
    assert run().counts == {"unchanged": 3}
    assert standin.requested_objects() == []


def test_incomplete_documents_lose_only_the_missing_values(
    run: IngestMaterials, standin: Standin, session: Session
) -> None:
    one, two, three = standin.materials.values()
    one.summary["bulk_modulus"] = {"voigt": 31.0, "reuss": 29.0, "vrh": None}
    del one.summary["shear_modulus"]
    two.summary["efermi"] = "about 2"
    three.summary["structure"] = {}
    assert run().counts == {"created": 1, "partial": 1, "rejected": 1}
    assert set(values_of(session, "mp-1")) == {
        "formation_energy_per_atom", "energy_above_hull", "efermi", "band_gap", "total_magnetization",
    }  # fmt: skip
    assert outcomes(session)["mp-2"][1] == "efermi is 'about 2', which is not a number"
    assert outcomes(session)["mp-3"] == ("rejected", "its document has no structure")


@pytest.mark.slow
def test_missing_texts_are_computed(run: IngestMaterials, standin: Standin, session: Session) -> None:
    standin.materials["mp-1"].text = None
    assert run(MpSelection(fcc=True, densities=False, limit=2), options=PLAIN).counts == {"created": 2}
    rows = session.execute(
        select(Crystal.source_id, Description.generator_version, Description.text)
        .join(CrystalRevision, CrystalRevision.crystal_id == Crystal.id)
        .join(Description, Description.revision_id == CrystalRevision.id)
        .where(Description.text_level == "all")
        .order_by(Crystal.source_id)
    ).all()
    assert [row.generator_version == "0.2.11" for row in rows] == [False, True]
    assert "Fm-3m" in rows[0].text


def test_key_is_in_no_row_and_no_file(run: IngestMaterials, source: MakeSource, engine: Engine, tmp_path: Path) -> None:
    import pickle

    run()
    with engine.connect() as connection:
        tables = connection.scalars(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).all()
        for table in tables:
            rows = connection.execute(text(f'SELECT t::text FROM "{table}" t')).scalars().all()
            assert not any(KEY in str(row) for row in rows), table
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []
    second = source()
    assert not any(KEY.encode() in pickle.dumps(record) for record in second.records())
    assert KEY not in repr(vars(second))
