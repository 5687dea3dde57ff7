"""Dry run of an ingest from the Materials Project."""

from __future__ import annotations

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from ingest.dry_run import dry_run
from registry.provenance import standing_outcomes
from tests.ingest.sources.mp.conftest import (
    HERE,
    IngestMaterials,
    MakeSource,
)
from tests.ingest.sources.mp_standin import Fault, Standin


def test_dry_run_requests_only_sizes(
    run: IngestMaterials, source: MakeSource, standin: Standin, engine: Engine
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
