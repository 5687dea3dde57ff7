"""From the Materials Project into the registry: every material an outcome, nothing asked twice."""

from __future__ import annotations

import gzip
import json
import warnings
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, func, select, text
from sqlalchemy.orm import Session

from ingest.dry_run import dry_run
from ingest.pipeline import IngestOptions, IngestReport, ingest
from ingest.sources.base import SourceRecord
from ingest.sources.mp.calculations import Calculations, number_of
from ingest.sources.mp.lock_file import LockFile, lock_file_of_run, read_lock_file, write_lock_file
from ingest.sources.mp.objects import ObjectStore, decode_chgcar, object_key
from ingest.sources.mp.rate_limiter import RateLimiter
from ingest.sources.mp.source import MpSelection, MpSource, read_ids
from registry.errors import ConfigurationError, InputError
from registry.files.grids import GridStore
from registry.models import Crystal, CrystalRevision, Density, Description, IngestRun, PropertyValue, SliceImage
from registry.provenance import standing_outcomes
from tests.ingest.sources.mp_standin import KEY, RELEASE, Fault, Material, Standin, chgcar_object, material, rock_salt

HERE = IngestOptions(fcc=True, workers=0, recipes=("paper-total",))
"""No worker processes, and a recipe that total densities are enough for."""
PLAIN = IngestOptions(fcc=True, workers=0, recipes=())


@pytest.fixture(scope="module")
def whole() -> list[Material]:
    """Three materials; the second is spin-polarised, the third's density lies in the cube."""
    return [material(1, points=12), material(2, points=12, spin=True), material(3, points=24, conventional=True)]


@pytest.fixture
def materials(whole: list[Material]) -> list[Material]:
    """The three, for the test to spoil."""
    return deepcopy(whole)


@pytest.fixture
def standin(materials: list[Material], mp_home: Path) -> Iterator[Standin]:
    with Standin(materials).running() as standin:
        yield standin


@pytest.fixture
def limiter(tmp_path: Path) -> RateLimiter:
    return RateLimiter(tmp_path / "mp", per_second=1000, attempts=2, backoff=0.01)


@pytest.fixture
def source(standin: Standin, limiter: RateLimiter) -> Callable[..., MpSource]:
    def make(selection: MpSelection | None = None, **changes: Any) -> MpSource:
        return MpSource(
            selection or MpSelection(fcc=True),
            folder=limiter.folder,
            key=KEY,
            limiter=limiter,
            endpoint=standin.url,
            object_endpoint=standin.url,
            **changes,
        )

    return make


@pytest.fixture
def run(source: Callable[..., MpSource], engine: Engine, home: Path) -> Callable[..., IngestReport]:
    """Ingest, as a new process would: nothing is remembered but what lies in files and the database."""

    def run(
        selection: MpSelection | None = None, *, options: IngestOptions = HERE, lock: LockFile | None = None
    ) -> IngestReport:
        return ingest(engine, source(selection, lock=lock), options, grids=GridStore((home / "grids").as_uri()))

    return run


@dataclass
class Listed:
    """A source whose materials were listed before: the client takes seconds for its own bookkeeping."""

    listed: list[SourceRecord]
    name: str = "mp"
    release: str | None = RELEASE
    remarks: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.listed)

    def records(self) -> Iterator[SourceRecord]:
        return iter(self.listed)


@pytest.fixture(scope="module")
def objects(whole: list[Material], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Standin, Listed]]:
    """A stand-in whose objects are to fail, and what it listed while all was well."""
    folder = tmp_path_factory.mktemp("mp")
    limiter = RateLimiter(folder, per_second=1000, attempts=2, backoff=0.01)
    with Standin(whole).running() as standin:
        urls = {"endpoint": standin.url, "object_endpoint": standin.url}
        source = MpSource(MpSelection(fcc=True), folder=folder, key=KEY, limiter=limiter, **urls)  # type: ignore[arg-type]
        yield standin, Listed(list(source.records()))


def outcomes(session: Session) -> dict[str, tuple[str, str | None]]:
    session.rollback()
    rows = session.execute(text("SELECT source_id, outcome, reason FROM v_ingest_outcomes WHERE source = 'mp'"))
    return {row.source_id: (row.outcome, row.reason) for row in rows}


def values_of(session: Session, ident: str) -> dict[str, tuple[float, str]]:
    session.rollback()
    rows = session.execute(
        select(PropertyValue.property, PropertyValue.value, PropertyValue.level_of_theory)
        .join(CrystalRevision)
        .join(Crystal)
        .where(Crystal.source_id == ident, CrystalRevision.is_current)
    )
    return {row.property: (row.value, row.level_of_theory) for row in rows}


def densities_of(session: Session, ident: str) -> dict[str, Density]:
    session.rollback()
    query = select(Density).join(CrystalRevision).join(Crystal)
    found = session.scalars(query.where(Crystal.source_id == ident, CrystalRevision.is_current))
    return {density.kind: density for density in found}


# ------------------------------------------------------------------------- what goes well


def test_materials_go_in_whole(
    run: Callable[..., IngestReport], standin: Standin, session: Session, home: Path
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


def test_a_density_has_the_atoms_of_its_own_cell(
    run: Callable[..., IngestReport], session: Session, home: Path
) -> None:
    """Where the atoms lie in a grid must not be taken from a structure in another cell."""
    run()
    assert densities_of(session, "mp-1")["total"].structure is None  # the cell of the structure that is shown
    other = densities_of(session, "mp-3")
    from pymatgen.core.structure import Structure

    own = Structure.from_dict(other["total"].structure)
    assert len(own) == 8
    assert other["deformation"].structure == other["total"].structure
    grid, lattice = GridStore((home / "grids").as_uri()).get(other["total"].uri, other["total"].sha256)
    np.testing.assert_allclose(lattice, own.lattice.matrix, atol=1e-6)
    peaks = [grid[tuple(np.rint(site.frac_coords * grid.shape).astype(int) % grid.shape)] for site in own]
    assert min(peaks) > 3 * grid.mean()


def test_a_density_says_where_it_came_from(
    run: Callable[..., IngestReport], standin: Standin, session: Session
) -> None:
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


def test_few_requests_and_none_twice(run: Callable[..., IngestReport], standin: Standin) -> None:
    run()
    first = [path for _, path, _ in standin.log]
    assert first.count("/heartbeat") == 3  # one of ours, two of the client
    assert len(standin.asked("/summary/")) == 2  # one page, one count
    assert len(standin.asked("/core/")) == len(standin.asked("/tasks/")) == len(standin.asked("/robocrys/")) == 1
    assert sorted(standin.objects_asked()) == ["mp-2000001", "mp-2000002", "mp-2000003"]
    assert standin.leaks == []

    standin.log.clear()
    again = run()
    assert again.counts == {"unchanged": 3}
    assert {path for _, path, _ in standin.log} == {"/heartbeat", "/materials/summary/"}


def test_a_new_release_with_the_same_values_downloads_nothing(
    run: Callable[..., IngestReport], standin: Standin
) -> None:
    run()
    standin.log.clear()
    standin.release = "2026.01.01"
    for one in standin.materials.values():
        one.summary["last_updated"] = "2026-01-01T00:00:00"
    assert run().counts == {"unchanged": 3}
    assert standin.objects_asked() == []
    assert len(standin.asked("/tasks/")) == 1  # another calculation might be the newest now


def test_a_value_that_changes_is_a_new_revision(
    run: Callable[..., IngestReport], standin: Standin, session: Session
) -> None:
    run()
    standin.materials["mp-2"].summary["efermi"] = -1.25
    assert run().counts == {"updated": 1, "unchanged": 2}
    assert values_of(session, "mp-2")["efermi"] == (-1.25, "GGA")


def test_what_the_reader_makes_is_what_the_client_makes(standin: Standin, limiter: RateLimiter) -> None:
    from mp_api.client import MPRester

    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setenv("AWS_ENDPOINT_URL_S3", standin.url)
        rester = MPRester(KEY, endpoint=standin.url, mute_progress_bars=True)
        chgcar = rester.get_charge_density_from_task_id("mp-2000002")
        newest = rester.get_charge_density_from_material_id("mp-2")
        rester.session.close()
    data = ObjectStore(limiter, standin.url).fetch(object_key("mp-2000002")).data
    structure, densities = decode_chgcar(data, level_of_theory="GGA", provenance="")
    assert structure == chgcar.structure == newest.structure
    for density, name in zip(densities, ("total", "diff"), strict=True):
        np.testing.assert_allclose(density.values * structure.volume, chgcar.data[name], rtol=1e-14, atol=1e-15)
        np.testing.assert_array_equal(chgcar.data[name], newest.data[name])


# ------------------------------------------------------------- which calculation, which cell


def test_the_picture_does_not_depend_on_the_cell_of_the_density(
    run: Callable[..., IngestReport], standin: Standin, session: Session
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


def test_the_density_of_another_functional_keeps_its_own_cell(
    run: Callable[..., IngestReport], standin: Standin, session: Session, home: Path
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


def test_the_density_of_another_crystal_is_not_taken(
    run: Callable[..., IngestReport], standin: Standin, session: Session
) -> None:
    standin.materials["mp-1"].objects["mp-2000001"] = chgcar_object(rock_salt("Mg", "O", 4.2), 12)
    assert run().counts == {"created": 2, "partial": 1}
    assert "they do not belong together" in str(outcomes(session)["mp-1"][1])


def test_only_static_gga_calculations_have_a_density(
    run: Callable[..., IngestReport], standin: Standin, session: Session
) -> None:
    standin.materials["mp-1"].calc_types = {"mp-5": "R2SCAN Static", "mp-6": "R2SCAN Structure Optimization"}
    report = run()
    assert report.counts == {"created": 2, "partial": 1}
    outcome, reason = outcomes(session)["mp-1"]
    assert outcome == "partial"
    assert "no GGA static density: no calculation is of that type; there are R2SCAN Static" in str(reason)
    assert values_of(session, "mp-1")["k_vrh"] == (30.0, "GGA")
    assert values_of(session, "mp-1")["efermi"] == (2.01, "unspecified")
    assert run().counts == {"unchanged": 3}


def test_the_newest_calculation_wins_in_either_spelling(standin: Standin, source: Callable[..., MpSource]) -> None:
    one = standin.materials["mp-1"]
    one.calc_types = {"mp-10": "GGA Static", "mp-9": "GGA+U Static", "mp-8": "GGA Static"}
    # The service answers in the new spelling: j is 9. What it has no document of comes last.
    one.updated = {"mp-10": "2023-01-01T00:00:00", "aaaaaaaj": "2024-05-01T00:00:00+00:00"}
    record = next(iter(source().records()))
    assert record.density.candidates == (("mp-9", "GGA+U"), ("mp-10", "GGA"), ("mp-8", "GGA"))  # type: ignore[attr-defined]


def test_a_density_without_a_task_document_is_found(
    run: Callable[..., IngestReport], standin: Standin, session: Session
) -> None:
    standin.materials["mp-1"].updated = {}
    assert run().counts == {"created": 3}
    assert densities_of(session, "mp-1")["total"].origin["task_id"] == "mp-2000001"  # type: ignore[index]


def test_an_older_density_is_taken_where_the_newest_calculation_has_none(
    run: Callable[..., IngestReport], standin: Standin, session: Session
) -> None:
    one = standin.materials["mp-1"]
    one.calc_types["mp-2500000"] = "GGA Static"
    one.updated["mp-2500000"] = "2026-01-01T00:00:00"
    assert run().counts == {"created": 3}
    assert densities_of(session, "mp-1")["total"].origin["task_id"] == "mp-2000001"  # type: ignore[index]
    assert "mp-2500000" in standin.objects_asked()


def test_a_service_that_promises_a_density_may_have_none(
    run: Callable[..., IngestReport], standin: Standin, session: Session
) -> None:
    standin.materials["mp-1"].summary["has_props"] = {"charge_density": True}
    standin.materials["mp-1"].objects.clear()
    report = run()
    assert report.counts == {"created": 2, "partial": 1}
    assert report.retried == 0
    assert "no density object: chgcars/mp-2000001.json.gz" in str(outcomes(session)["mp-1"][1])
    # That is for good: nothing is asked again.
    standin.log.clear()
    assert run().counts == {"unchanged": 3}
    assert standin.objects_asked() == []


@pytest.mark.parametrize(("ident", "key"), [("mp-149", "mp-149"), ("mp-ft", "mp-149"), ("mp-3347530", "mp-hilze")])
def test_objects_are_named_in_the_spelling_of_their_number(ident: str, key: str) -> None:
    assert object_key(ident) == f"chgcars/{key}.json.gz"
    assert number_of(ident) == number_of(key)


def test_levels_of_theory_come_from_the_calculation() -> None:
    calculations = Calculations((("mp-ft", "GGA+U Static"), ("mp-150", "R2SCAN Static")))
    assert [calculations.level_of_theory(task) for task in ("mp-149", "mp-150", "mp-1")] == [
        "GGA+U",
        "r2SCAN",
        "unspecified",
    ]


# ------------------------------------------------------------------------------- faults


def edited(change: Callable[[dict[str, Any]], Any]) -> Callable[[bytes], bytes]:
    return lambda body: gzip.compress(json.dumps(change(json.loads(gzip.decompress(body)))).encode())


def as_class(name: str) -> Callable[[dict[str, Any]], Any]:
    return lambda content: {"data": {**content["data"], "@class": name}}


def first_number(value: float) -> Callable[[bytes], bytes]:
    def change(content: dict[str, Any]) -> Any:
        content["data"]["data"]["total"]["data"][0][0][0] = value
        return content

    return edited(change)


@pytest.mark.parametrize(
    ("fault", "outcome", "reason", "again"),
    [
        (Fault(status=404), "partial", "no density object", False),
        (Fault(status=403), "partial", "density object refused", True),
        (Fault(status=503), "deferred", "could not be downloaded now (status 503)", True),
        (Fault(status=429, headers={"Retry-After": "0"}), "deferred", "(status 429)", True),
        (Fault(cut=True), "deferred", "could not be downloaded now (the download was truncated)", True),
        (Fault(change=lambda body: body[: len(body) // 2]), "partial", "damaged density object: gzip", True),
        (
            Fault(change=lambda body: body[:20] + b"\0" * 79 + body[99:]),
            "partial",
            "damaged density object: gzip",
            True,
        ),
        (Fault(change=lambda _: gzip.compress(b'{"data": {')), "partial", "damaged density object: not JSON", True),
        (Fault(change=first_number(float("nan"))), "partial", "damaged density object: not JSON", True),
        (Fault(change=lambda _: gzip.compress(b'{"data": null}')), "partial", "density object is empty", True),
        (Fault(change=lambda _: gzip.compress(b'{"other": 1}')), "partial", "no entry 'data'", True),
        (Fault(change=edited(as_class("Locpot"))), "partial", "holds a Locpot, not a Chgcar", True),
        (Fault(change=lambda _: gzip.compress(b'{"data": [1]}')), "partial", "holds a list, not a Chgcar", True),
        (Fault(change=first_number(1e6)), "partial", "electrons", False),
    ],
)
def test_every_fault_of_an_object_is_its_own_outcome_and_only_what_is_missing_is_for_good(
    fault: Fault,
    outcome: str,
    reason: str,
    again: bool,
    objects: tuple[Standin, Listed],
    engine: Engine,
    session: Session,
    home: Path,
) -> None:
    standin, listed = objects
    run = partial(ingest, engine, listed, PLAIN, grids=GridStore((home / "grids").as_uri()))
    standin.faults.clear()
    standin.fail("mp-2000001", fault)
    assert run().counts == {"created": 2, outcome: 1}
    found = outcomes(session)["mp-1"]
    assert found[0] == outcome
    assert reason in str(found[1])
    assert "\n" not in str(found[1])
    # The rest of the material is there, unless it is to come whole.
    assert bool(values_of(session, "mp-1")) is (outcome == "partial")

    standin.faults.clear()
    standin.log.clear()
    second = run()
    if again:
        assert second.counts == {"unchanged": 2, "created" if outcome == "deferred" else "updated": 1}
        assert standin.objects_asked() == ["mp-2000001"]
        assert densities_of(session, "mp-1")["total"].n_electrons == pytest.approx(10)
    else:
        assert second.counts == {"unchanged": 3}
        assert standin.objects_asked() == []


def test_classes_that_an_object_names_are_never_imported(tmp_path: Path) -> None:
    data = chgcar_object(rock_salt("Na", "Cl", 5.6), 12)
    marker = tmp_path / "executed"
    bad = edited(lambda content: {**content, "x": {"@module": "pathlib", "@class": "Path", "args": [str(marker)]}})(
        data
    )
    structure, densities = decode_chgcar(bad, level_of_theory="GGA", provenance="")
    assert structure.formula == "Na1 Cl1"
    assert densities[0].n_electrons == pytest.approx(14)


def test_a_density_of_two_shapes_is_damaged() -> None:
    def shorten(content: dict[str, Any]) -> Any:
        content["data"]["data"]["diff"] = {"data": [[[1.0]]]}
        return content

    data = edited(shorten)(chgcar_object(rock_salt("Na", "Cl", 5.6), 12))
    with pytest.raises(InputError, match="different shapes"):
        decode_chgcar(data, level_of_theory="GGA", provenance="")


def test_documents_with_holes_cost_what_is_missing_only(
    run: Callable[..., IngestReport], standin: Standin, session: Session
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


def test_a_material_whose_calculations_did_not_come_is_asked_for_again(
    run: Callable[..., IngestReport], standin: Standin, session: Session
) -> None:
    hidden = standin.materials["mp-1"]
    core = standin._core
    standin._core = lambda query: (one for one in core(query) if one["material_id"] != hidden.ident)  # type: ignore[method-assign]
    report = run()
    assert report.counts == {"created": 2, "partial": 1}
    assert report.retried == 1
    assert "lists no calculation of this material" in str(outcomes(session)["mp-1"][1])
    standin._core = core  # type: ignore[method-assign]
    assert run().counts == {"updated": 1, "unchanged": 2}
    assert "total" in densities_of(session, "mp-1")


# --------------------------------------------------------------------------- selections


def test_other_cubic_and_unstable_materials_are_left_out(standin: Standin, source: Callable[..., MpSource]) -> None:
    standin.materials["mp-1"].summary["symmetry"] = {"crystal_system": "Cubic", "number": 221}
    standin.materials["mp-2"].summary["is_stable"] = False
    assert [record.source_id for record in source().records()] == ["mp-3"]
    everything = source(MpSelection(fcc=True, unstable=True)).records()
    assert [record.source_id for record in everything] == ["mp-2", "mp-3"]
    assert [record.source_id for record in source(MpSelection(spacegroups=(221,))).records()] == ["mp-1"]
    assert "is_stable" not in standin.asked("/summary/")[2]


def test_elements_ids_and_limits(standin: Standin, source: Callable[..., MpSource]) -> None:
    assert [one.source_id for one in source(MpSelection(elements=("Li", "Br"))).records()] == ["mp-2"]
    assert [one.source_id for one in source(MpSelection(fcc=True, limit=2)).records()] == ["mp-1", "mp-2"]
    chosen = list(source(MpSelection(ids=("mp-3", "mp-77"))).records())
    assert [one.source_id for one in chosen] == ["mp-3", "mp-77"]
    with pytest.raises(InputError, match="has no material of this id"):
        chosen[1].read()


def test_without_densities_none_is_asked_for(
    run: Callable[..., IngestReport], standin: Standin, session: Session
) -> None:
    assert run(MpSelection(fcc=True, densities=False), options=PLAIN).counts == {"created": 3}
    assert standin.objects_asked() == []
    assert standin.asked("/tasks/") == []
    assert run().counts == {"updated": 3}


@pytest.mark.slow
def test_texts_are_computed_where_the_project_has_none(
    run: Callable[..., IngestReport], standin: Standin, session: Session
) -> None:
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


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "select with --fcc"),
        ({"spacegroups": (231,)}, "no space group 231"),
        ({"fcc": True, "spacegroups": (225, 221)}, "221 is not F-centred"),
        ({"ids": ("mp-1",), "elements": ("Na",)}, "leave out --spacegroup"),
    ],
)
def test_selections_that_make_no_sense(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        MpSelection(**wrong)


def test_ids_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "ids.txt"
    path.write_text("# stable ones\nmp-149, mp-ft mp-22862\nmvc-7\n\nmp-3347530 # in the new spelling\n")
    assert read_ids(path) == ("mp-149", "mp-22862", "mvc-7", "mp-hilze")
    path.write_text("mp-149\nNaCl\n")
    with pytest.raises(ConfigurationError, match=r"line 2 of .*: 'NaCl' is not a material id"):
        read_ids(path)
    path.write_text("# none\n")
    with pytest.raises(ConfigurationError, match="has no material id"):
        read_ids(path)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_ids(tmp_path / "nothing")


def test_a_preview_asks_for_sizes_only(
    run: Callable[..., IngestReport], source: Callable[..., MpSource], standin: Standin, engine: Engine
) -> None:
    standin.materials["mp-2"].objects.clear()
    standin.fail("mp-2000003", Fault(status=403))
    found = dry_run(source(), HERE, {})
    size = len(standin.materials["mp-1"].objects["mp-2000001"])
    assert (found.materials, found.objects, found.bytes, found.without, found.texts) == (3, 1, size, 1, 3)
    assert found.troubles == ["density object refused: chgcars/mp-2000003.json.gz (403)"]
    assert {method for method, path, _ in standin.log if "/chgcars/" in path} == {"HEAD"}

    standin.faults.clear()
    run()
    with Session(engine) as session:
        again = dry_run(source(), HERE, standing_outcomes(session, "mp"))
    assert (again.unchanged, again.objects, again.without) == (3, 0, 0)


# --------------------------------------------------------------------------------- lock


def test_a_lock_pins_materials_calculations_and_bytes(
    run: Callable[..., IngestReport],
    standin: Standin,
    engine: Engine,
    session: Session,
    tmp_path: Path,
    home: Path,
    source: Callable[..., MpSource],
    new_database: Callable[[], str],
) -> None:
    standin.materials["mp-2"].objects.clear()
    report = run()
    path = tmp_path / "mp.lock.json"
    write_lock_file(path, lock_file_of_run(session, "mp", report.run_id, release=RELEASE))
    lock = read_lock_file(path)
    assert lock.release == RELEASE
    assert lock.materials["mp-2"] == (None, None)
    assert lock.materials["mp-1"][0] == "mp-2000001"
    revisions = set(session.scalars(select(CrystalRevision.content_sha256)))

    # Meanwhile, at the project: a newer calculation of one, another stable material, one is unstable.
    one = standin.materials["mp-1"]
    one.calc_types["mp-2900000"] = "GGA Static"
    one.updated["mp-2900000"] = "2026-01-01T00:00:00"
    one.objects["mp-2900000"] = chgcar_object(one.structure, 16)
    one.summary["last_updated"] = "2026-01-01T00:00:00"
    standin.materials["mp-9"] = material(9, points=12)
    standin.materials["mp-3"].summary["is_stable"] = False
    standin.log.clear()

    from registry.database import connect
    from registry.settings import Settings

    other = connect(Settings(home=home, database_url=new_database()))
    try:
        second = ingest(other, source(lock=lock), HERE, grids=GridStore((tmp_path / "other").as_uri()))
        assert second.counts == {"created": 2, "partial": 1}
        with Session(other) as elsewhere:
            assert set(elsewhere.scalars(select(CrystalRevision.content_sha256))) == revisions
    finally:
        other.dispose()
    assert standin.asked("/tasks/") == []
    assert sorted(standin.objects_asked()) == ["mp-2000001", "mp-2000003"]


def test_an_object_that_is_not_the_locked_one_is_a_problem(
    run: Callable[..., IngestReport], standin: Standin, session: Session
) -> None:
    lock = LockFile(None, {"mp-1": ("mp-2000001", "0" * 64)})
    report = run(lock=lock)
    assert report.counts == {"partial": 1}
    assert "is not the one of the lock file" in str(outcomes(session)["mp-1"][1])
    assert densities_of(session, "mp-1") == {}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"format": 2, "release": null, "materials": {}}',
        '{"format": 1, "release": null, "materials": {"mp-1": {"task_id": "mp-2", "sha256": null}}}',
        '{"format": 1, "release": null, "materials": {"mp-1": {"task_id": 7, "sha256": null}}}',
    ],
)
def test_a_file_that_is_no_lock_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "mp.lock.json"
    path.write_text(content)
    with pytest.raises(ConfigurationError, match=r"mp\.lock\.json"):
        read_lock_file(path)


def test_the_key_is_in_no_row_and_no_file(
    run: Callable[..., IngestReport], source: Callable[..., MpSource], engine: Engine, tmp_path: Path
) -> None:
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
    made = source()
    assert not any(KEY.encode() in pickle.dumps(record) for record in made.records())
    assert KEY not in repr(vars(made))
