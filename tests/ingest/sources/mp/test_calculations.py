"""Calculations of a material: the one with the density, and levels of theory."""

from __future__ import annotations

from sqlalchemy.orm import Session

from ingest.sources.mp.calculations import Calculations
from tests.ingest.sources.mp.conftest import (
    IngestMaterials,
    MakeSource,
    densities_of,
    outcomes,
    values_of,
)
from tests.ingest.sources.mp_standin import Standin


def test_only_static_gga_calculations_have_a_density(run: IngestMaterials, standin: Standin, session: Session) -> None:
    standin.materials["mp-1"].calc_types = {"mp-5": "R2SCAN Static", "mp-6": "R2SCAN Structure Optimization"}
    report = run()
    assert report.counts == {"created": 2, "partial": 1}
    outcome, reason = outcomes(session)["mp-1"]
    assert outcome == "partial"
    assert "no GGA static density: no calculation is of that type; there are R2SCAN Static" in str(reason)
    assert values_of(session, "mp-1")["k_vrh"] == (30.0, "GGA")
    assert values_of(session, "mp-1")["efermi"] == (2.01, "unspecified")
    assert run().counts == {"unchanged": 3}


def test_newest_calculation_comes_first_in_either_spelling(standin: Standin, source: MakeSource) -> None:
    one = standin.materials["mp-1"]
    one.calc_types = {"mp-10": "GGA Static", "mp-9": "GGA+U Static", "mp-8": "GGA Static"}
    # The service answers in the new spelling: j is 9. Calculations without a document come last.
    one.updated = {"mp-10": "2023-01-01T00:00:00", "aaaaaaaj": "2024-05-01T00:00:00+00:00"}
    record = next(iter(source().records()))
    assert record.density.candidates == (("mp-9", "GGA+U"), ("mp-10", "GGA"), ("mp-8", "GGA"))  # type: ignore[attr-defined]


def test_density_without_a_task_document_is_found(run: IngestMaterials, standin: Standin, session: Session) -> None:
    standin.materials["mp-1"].updated = {}
    assert run().counts == {"created": 3}
    assert densities_of(session, "mp-1")["total"].origin["task_id"] == "mp-2000001"  # type: ignore[index]


def test_older_density_is_used_if_the_newest_calculation_has_none(
    run: IngestMaterials, standin: Standin, session: Session
) -> None:
    one = standin.materials["mp-1"]
    one.calc_types["mp-2500000"] = "GGA Static"
    one.updated["mp-2500000"] = "2026-01-01T00:00:00"
    assert run().counts == {"created": 3}
    assert densities_of(session, "mp-1")["total"].origin["task_id"] == "mp-2000001"  # type: ignore[index]
    assert "mp-2500000" in standin.requested_objects()


def test_level_of_theory_comes_from_the_calculation() -> None:
    calculations = Calculations((("mp-ft", "GGA+U Static"), ("mp-150", "R2SCAN Static")))
    assert [calculations.level_of_theory(task) for task in ("mp-149", "mp-150", "mp-1")] == [
        "GGA+U",
        "r2SCAN",
        "unspecified",
    ]


def test_missing_calculations_are_requested_again(run: IngestMaterials, standin: Standin, session: Session) -> None:
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
