"""Ingestion: outcomes with their reasons, repeated runs and interrupted runs."""

from __future__ import annotations

import csv
import logging
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Protocol

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pymatgen.core.structure import Structure
from pymatgen.io.common import VolumetricData
from pymatgen.io.vasp.inputs import Poscar
from pymatgen.io.vasp.outputs import Chgcar
from sqlalchemy import Engine, FromClause, func, select, text
from sqlalchemy.orm import Session

from ingest.pipeline import IngestInterruptedError, IngestOptions, IngestReport, ingest
from ingest.sources.base import CrystalSource, RawCrystal, SourceRecord
from ingest.sources.folder import FolderSource
from registry.crystals import PropertyData
from registry.errors import InputError, UnknownNameError
from registry.files.grids import GridStore
from registry.models import Base, Crystal, CrystalRevision, Density, Description, IngestRun, PropertyValue, SliceImage

SAMPLE = Path(str(files("ingest") / "sample"))
GOOD, BAD, OTHER = "mp-23703", "mp-24719", "mp-1009077"  # LiH, NiH, FeH: the smallest grids
Grid = NDArray[np.floating]
HERE = IngestOptions(fcc=True, workers=0)
"""No worker processes."""


class RunIngest(Protocol):
    """Ingest a folder or another source."""

    def __call__(self, source: Path | CrystalSource, options: IngestOptions = HERE) -> IngestReport: ...


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A complete dataset folder of three crystals."""
    folder = tmp_path / "mine"
    for part in ("structures", "densities", "images"):
        (folder / part).mkdir(parents=True)
    for ident in (GOOD, BAD, OTHER):
        shutil.copyfile(SAMPLE / "structures" / f"{ident}.cif", folder / "structures" / f"{ident}.cif")
        shutil.copyfile(SAMPLE / "densities" / f"{ident}.h5", folder / "densities" / f"{ident}.h5")
    for table in ("properties.csv", "descriptions.csv"):
        rows = [row for row in table_of(SAMPLE / table) if row["id"] in (GOOD, BAD, OTHER)]
        write_table(folder / table, rows)
    return folder


@pytest.fixture
def run(engine: Engine, home: Path) -> RunIngest:
    """Function that ingests into the test's database."""

    def run(source: Path | CrystalSource, options: IngestOptions = HERE) -> IngestReport:
        chosen = FolderSource(source) if isinstance(source, Path) else source
        return ingest(engine, chosen, options, grids=GridStore((home / "grids").as_uri()))

    return run


def table_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write_table(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def outcomes(session: Session) -> dict[str, tuple[str, str | None]]:
    rows = session.execute(text("SELECT source_id, outcome, reason FROM v_ingest_outcomes"))
    return {row.source_id: (row.outcome, row.reason) for row in rows}


def count(session: Session, table: type[Base] | FromClause) -> int:
    return session.scalar(select(func.count()).select_from(table)) or 0


def test_folder_is_ingested_and_a_second_run_changes_nothing(
    folder: Path, run: RunIngest, session: Session, home: Path
) -> None:
    first = run(folder)
    assert first.counts == {"created": 3}
    assert first.in_registry == 3
    assert {ident: outcome for ident, (outcome, _) in outcomes(session).items()} == dict.fromkeys(
        (GOOD, BAD, OTHER), "created"
    )
    assert count(session, Crystal) == 3
    assert count(session, Density) == 2 * 3 + 1  # FeH is magnetic
    assert count(session, SliceImage) == 3
    assert count(session, Description) == 9
    assert set(session.scalars(select(Description.generator))) == {"robocrystallographer"}
    for density in session.scalars(select(Density)):
        GridStore((home / "grids").as_uri()).get(density.uri, density.sha256)

    second = run(folder)
    assert second.counts == {"unchanged": 3}
    assert second.standing == {"created": 3}
    assert second.in_registry == 3
    assert count(session, CrystalRevision) == 3


def test_only_a_changed_crystal_becomes_a_new_revision(folder: Path, run: RunIngest, session: Session) -> None:
    run(folder)
    rows = table_of(folder / "properties.csv")
    write_table(folder / "properties.csv", [row | {"k_vrh": "99"} if row["id"] == GOOD else row for row in rows])
    assert run(folder).counts == {"updated": 1, "unchanged": 2}
    revisions = session.execute(
        select(CrystalRevision.n, CrystalRevision.is_current, PropertyValue.value)
        .join(Crystal)
        .join(PropertyValue, PropertyValue.revision_id == CrystalRevision.id)
        .where(Crystal.source_id == GOOD, PropertyValue.property == "k_vrh")
        .order_by(CrystalRevision.n)
    ).all()
    assert [(n, current) for n, current, _ in revisions] == [(1, False), (2, True)]
    assert revisions[1].value == 99
    assert run(folder).counts == {"unchanged": 3}


def test_further_recipes_are_added_to_the_revision(folder: Path, run: RunIngest, session: Session) -> None:
    run(folder)
    more = IngestOptions(fcc=True, workers=0, recipes=("metric", "paper-total"))
    assert run(folder, more).counts == {"updated": 3}
    assert count(session, SliceImage) == 6
    assert count(session, CrystalRevision) == 3


def test_second_run_with_other_options_is_unchanged(folder: Path, run: RunIngest) -> None:
    run(folder)
    # With other options every crystal is prepared again; its content is the same.
    assert run(folder, IngestOptions(workers=0)).counts == {"unchanged": 3}
    report = run(folder, IngestOptions(workers=0))
    assert report.counts == {"unchanged": 3}
    assert report.standing == {"created": 3}, "the checksum of the last run counts"


def test_worker_processes_give_the_same_result(folder: Path, run: RunIngest, session: Session) -> None:
    report = run(folder, IngestOptions(fcc=True, workers=2))
    assert report.counts == {"created": 3}
    # A different result of a worker would be an update here.
    assert run(folder, IngestOptions(fcc=True, workers=0, recipes=("metric",), texts="source", limit=3)).counts == {
        "unchanged": 3
    }
    hashes = set(session.scalars(select(CrystalRevision.content_sha256)))
    run(FolderSource(folder, name="again"))
    assert set(session.scalars(select(CrystalRevision.content_sha256))) == hashes


def test_suspect_labels_are_kept_and_marked(folder: Path, run: RunIngest, session: Session) -> None:
    rows = table_of(folder / "properties.csv")
    write_table(folder / "properties.csv", [row | {"k_vrh": "-113.9"} if row["id"] == BAD else row for row in rows])
    assert run(folder).counts == {"created": 3}
    (suspect,) = session.scalars(select(PropertyValue).where(PropertyValue.suspect))
    assert (suspect.property, suspect.value) == ("k_vrh", -113.9)
    assert "plausible" in str(suspect.suspect_reason)


def chgcar_of(folder: Path, ident: str) -> Path:
    """Replace the HDF5 file of a crystal with a CHGCAR in VASP's format."""
    source = folder / "densities" / f"{ident}.h5"
    grid = VolumetricData.from_hdf5(str(source))
    path = folder / "densities" / ident / "CHGCAR"
    path.parent.mkdir()
    Chgcar(Poscar(grid.structure), {"total": grid.data["total"]}).write_file(str(path))
    source.unlink()
    return path


def truncate_chgcar(folder: Path) -> None:
    path = chgcar_of(folder, BAD)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def change_total(folder: Path, change: Callable[[Grid], Grid], *, keep_count: bool = False) -> None:
    with h5py.File(folder / "densities" / f"{BAD}.h5", "r+") as file:
        values = change(file["vdata/total"][()])
        del file["vdata/total"]  # its filter rounds and does not support NaN
        file["vdata/total"] = values
        if not keep_count:
            del file.attrs["n_electrons"]


def one_nan(values: Grid) -> Grid:
    values[2, 3, 4] = np.nan
    return values


def partial_occupancy(folder: Path) -> None:
    path = folder / "structures" / f"{BAD}.cif"
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[-1].endswith("1")
    path.write_text("\n".join([*lines[:-1], lines[-1][:-1] + "0.5"]) + "\n", encoding="utf-8")


def edit_row(**cells: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        rows = table_of(folder / "properties.csv")
        write_table(folder / "properties.csv", [row | cells if row["id"] == BAD else row for row in rows])

    return edit


def colour_png(folder: Path) -> None:
    Image.new("RGB", (8, 8), (10, 20, 30)).save(folder / "images" / f"{BAD}.png")


def other_space_group(folder: Path) -> None:
    (folder / "densities" / f"{BAD}.h5").unlink()
    structure = Structure.from_file(folder / "structures" / f"{BAD}.cif")
    Structure(structure.lattice, structure.species, [[0, 0, 0], [0.5, 0.5, 0.4]]).to(
        filename=str(folder / "structures" / f"{BAD}.cif")
    )


def remove_files(folder: Path) -> None:
    (folder / "densities" / f"{BAD}.h5").unlink()
    (folder / "structures" / f"{BAD}.cif").unlink()


@pytest.mark.parametrize(
    ("damage", "outcome", "reason", "kept"),
    [
        (truncate_chgcar, "partial", "CHGCAR", set()),
        (lambda folder: change_total(folder, one_nan), "partial", "not finite", {"deformation"}),
        (lambda folder: change_total(folder, lambda v: v * 9), "partial", "electrons", {"deformation"}),
        (lambda folder: change_total(folder, lambda v: v * 1.1, keep_count=True), "partial", "source states", set()),
        (partial_occupancy, "rejected", "partial occupancy", None),
        (edit_row(k_vrh="about 90"), "partial", "k_vrh is 'about 90', which is not a number", {"total", "deformation"}),
        (edit_row(formula="NaCl"), "rejected", "does not agree with the structure", None),
        (edit_row(formula="none"), "rejected", "not a chemical formula", None),
        (colour_png, "partial", "colour mode RGB", {"total", "deformation"}),
        (other_space_group, "rejected", "is not F-centred cubic", None),
        (remove_files, "rejected", "no structure", None),
    ],
)
def test_invalid_input_is_an_outcome_with_its_reason_and_the_rest_is_kept(
    damage: Callable[[Path], None],
    outcome: str,
    reason: str,
    kept: set[str] | None,
    folder: Path,
    run: RunIngest,
    session: Session,
) -> None:
    damage(folder)
    report = run(folder)
    assert report.counts == {"created": 2, outcome: 1}
    found = outcomes(session)
    assert found[GOOD] == found[OTHER] == ("created", None)
    assert found[BAD][0] == outcome
    assert reason in str(found[BAD][1])
    assert "\n" not in str(found[BAD][1])
    kinds = set(
        session.scalars(select(Density.kind).join(CrystalRevision).join(Crystal).where(Crystal.source_id == BAD))
    )
    assert kinds == (kept or set())
    assert count(session, Crystal) == (2 if outcome == "rejected" else 3)
    if outcome == "partial":
        # Its other properties and its texts are stored.
        here = select(CrystalRevision.id).join(Crystal).where(Crystal.source_id == BAD)
        values = session.scalars(select(PropertyValue.property).where(PropertyValue.revision_id.in_(here)))
        assert {"efermi", "formation_energy_per_atom"} <= set(values)
        assert count(session, select(Description).where(Description.revision_id.in_(here)).subquery()) == 3

    again = run(folder)
    assert again.counts == {"unchanged": 3}
    assert again.standing[outcome] == 1
    assert outcomes(session)[BAD] == found[BAD]


def test_repaired_file_is_ingested(folder: Path, run: RunIngest, session: Session) -> None:
    path = folder / "densities" / f"{BAD}.h5"
    whole = path.read_bytes()
    path.write_bytes(whole[:1000])
    assert run(folder).counts == {"created": 2, "partial": 1}
    path.write_bytes(whole)
    assert run(folder).counts == {"updated": 1, "unchanged": 2}
    session.expire_all()
    assert outcomes(session)[BAD] == ("updated", None)


def test_unknown_recipe_is_an_error_before_the_run(folder: Path, run: RunIngest, session: Session) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'metric'"):
        run(folder, IngestOptions(recipes=("metrik",)))
    assert count(session, IngestRun) == 0


@dataclass(frozen=True)
class FaultyRecord:
    """A formula without files; reading it may raise an error, send a signal or end the process."""

    source_id: str
    fault: str = ""
    source: str = "faulty"
    has_description: bool = True

    def input_sha256(self) -> str:
        if self.fault == "unreadable":
            raise PermissionError(13, "no permission", self.source_id)
        return f"{sum(self.source_id.encode()):064x}"

    def read(self, *, level_of_theory: str | None = None) -> RawCrystal:
        if self.fault == "timeout":
            raise TimeoutError("no answer")
        if self.fault == "interrupt":
            os.kill(os.getpid(), signal.SIGINT)
        if self.fault == "terminate":
            os.kill(os.getpid(), signal.SIGTERM)
        if self.fault == "die":
            os._exit(9)
        if self.fault == "read the key" and "MP_API_KEY" in os.environ:
            raise InputError("the key is visible")
        if self.fault == "nul":
            return RawCrystal("NaCl", None, (PropertyData("efermi", 1.0, "G\0GA"),))
        return RawCrystal("NaCl", None)


@dataclass
class FaultySource:
    """A source of such records, by id and fault."""

    faults: dict[str, str]
    name: str = "faulty"
    release: str | None = None
    remarks: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.faults)

    def records(self) -> Iterator[SourceRecord]:
        return (FaultyRecord(ident, fault) for ident, fault in self.faults.items())


PLAIN = IngestOptions(recipes=(), texts="none", workers=0)


def test_unreadable_record_is_deferred_and_read_again(
    run: RunIngest, session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, logger="ingest"):
        report = run(FaultySource({"a": "", "b": "timeout", "c": "unreadable"}), PLAIN)
    assert report.counts == {"created": 1, "deferred": 2}
    assert outcomes(session)["b"] == ("deferred", "TimeoutError: no answer")
    assert "no permission" in str(outcomes(session)["c"][1])
    logged = [record.getMessage() for record in caplog.records if record.name == "ingest"]
    assert "faulty b is deferred: TimeoutError: no answer" in logged
    again = run(FaultySource({"a": "", "b": "", "c": ""}), PLAIN)
    assert again.counts == {"unchanged": 1, "created": 2}


def test_crystal_refused_by_the_database_is_deferred_alone(run: RunIngest, session: Session) -> None:
    report = run(FaultySource({"a": "", "b": "nul", "c": ""}), PLAIN)
    assert report.counts == {"created": 2, "deferred": 1}
    assert "refused by the database" in str(outcomes(session)["b"][1])
    assert count(session, Crystal) == 2


@pytest.mark.parametrize("fault", ["interrupt", "terminate"])
def test_signal_ends_the_run_between_crystals(fault: str, run: RunIngest, session: Session) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(IngestInterruptedError, match="interrupted after 2 of 4; run the same command to continue"):
        run(FaultySource({"a": "", "b": fault, "c": "", "d": ""}), PLAIN)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert session.scalars(select(IngestRun.status)).all() == ["interrupted"]
    assert run(FaultySource(dict.fromkeys("abcd", "")), PLAIN).counts == {"unchanged": 2, "created": 2}
    session.expire_all()
    assert session.scalars(select(IngestRun.status).order_by(IngestRun.id)).all() == ["interrupted", "finished"]


def test_worker_that_dies_defers_only_its_crystal(run: RunIngest, session: Session) -> None:
    faults = {"a": "", "b": "die", "c": "", "d": "die", "e": "", "f": ""}
    report = run(FaultySource(faults), IngestOptions(recipes=(), texts="none", workers=2))
    assert report.counts == {"created": 4, "deferred": 2}
    assert {ident for ident, (outcome, _) in outcomes(session).items() if outcome == "deferred"} == {"b", "d"}
    assert "worker process died" in str(outcomes(session)["b"][1])


def test_workers_have_no_key(run: RunIngest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MP_API_KEY", "x" * 32)
    report = run(FaultySource({"a": "read the key"}), IngestOptions(recipes=(), texts="none", workers=1))
    assert report.counts == {"created": 1}
    assert os.environ["MP_API_KEY"] == "x" * 32


def test_second_run_of_many_crystals_is_fast(run: RunIngest) -> None:
    many = FaultySource({f"x{i:04}": "" for i in range(300)})
    run(many, PLAIN)
    began = time.process_time()
    assert run(many, PLAIN).counts == {"unchanged": 300}
    assert time.process_time() - began < 2
