"""Selection of materials by space group, stability, elements and ids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import Session

from ingest.sources.mp.source import MpSelection, read_ids
from registry.errors import ConfigurationError, InputError
from tests.ingest.sources.mp.conftest import (
    PLAIN,
    IngestMaterials,
    MakeSource,
)
from tests.ingest.sources.mp_standin import Standin


def test_other_cubic_and_unstable_materials_are_left_out(standin: Standin, source: MakeSource) -> None:
    standin.materials["mp-1"].summary["symmetry"] = {"crystal_system": "Cubic", "number": 221}
    standin.materials["mp-2"].summary["is_stable"] = False
    assert [record.source_id for record in source().records()] == ["mp-3"]
    everything = source(MpSelection(fcc=True, unstable=True)).records()
    assert [record.source_id for record in everything] == ["mp-2", "mp-3"]
    assert [record.source_id for record in source(MpSelection(spacegroups=(221,))).records()] == ["mp-1"]
    assert "is_stable" not in standin.requests("/summary/")[2]


def test_elements_ids_and_limits(standin: Standin, source: MakeSource) -> None:
    assert [one.source_id for one in source(MpSelection(elements=("Li", "Br"))).records()] == ["mp-2"]
    assert [one.source_id for one in source(MpSelection(fcc=True, limit=2)).records()] == ["mp-1", "mp-2"]
    chosen = list(source(MpSelection(ids=("mp-3", "mp-77"))).records())
    assert [one.source_id for one in chosen] == ["mp-3", "mp-77"]
    with pytest.raises(InputError, match="has no material of this id"):
        chosen[1].read()


def test_without_densities_no_object_is_requested(run: IngestMaterials, standin: Standin, session: Session) -> None:
    assert run(MpSelection(fcc=True, densities=False), options=PLAIN).counts == {"created": 3}
    assert standin.requested_objects() == []
    assert standin.requests("/tasks/") == []
    assert run().counts == {"updated": 3}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "select with --fcc"),
        ({"spacegroups": (231,)}, "no space group 231"),
        ({"fcc": True, "spacegroups": (225, 221)}, "221 is not F-centred"),
        ({"ids": ("mp-1",), "elements": ("Na",)}, "leave out --spacegroup"),
    ],
)
def test_invalid_selections_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        MpSelection(**wrong)


def test_ids_are_read_from_a_file(tmp_path: Path) -> None:
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
