"""Lock files: materials, calculations and checksums."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from ingest.pipeline import ingest
from ingest.sources.mp.lock_file import LockFile, lock_file_of_run, read_lock_file, write_lock_file
from registry.errors import ConfigurationError
from registry.files.grids import GridStore
from registry.models import CrystalRevision
from tests.ingest.sources.mp.conftest import (
    HERE,
    IngestMaterials,
    MakeSource,
    densities_of,
    outcomes,
)
from tests.ingest.sources.mp_standin import RELEASE, Standin, chgcar_object, material


def test_lock_file_fixes_materials_calculations_and_bytes(
    run: IngestMaterials,
    standin: Standin,
    engine: Engine,
    session: Session,
    tmp_path: Path,
    home: Path,
    source: MakeSource,
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

    # Changes in the Materials Project: a newer calculation, a new stable material, an unstable one.
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
    assert standin.requests("/tasks/") == []
    assert sorted(standin.requested_objects()) == ["mp-2000001", "mp-2000003"]


def test_object_with_another_checksum_than_the_locked_one_is_a_problem(
    run: IngestMaterials, standin: Standin, session: Session
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
def test_file_that_is_not_a_lock_file_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "mp.lock.json"
    path.write_text(content)
    with pytest.raises(ConfigurationError, match=r"mp\.lock\.json"):
        read_lock_file(path)
