"""Density objects: keys, decoding, and each kind of failure."""

from __future__ import annotations

import gzip
import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from ingest.pipeline import ingest
from ingest.sources.base import SourceRecord
from ingest.sources.mp.calculations import number_of
from ingest.sources.mp.objects import ObjectStore, decode_chgcar, object_key
from ingest.sources.mp.rate_limiter import RateLimiter
from ingest.sources.mp.source import MpAccess, MpSelection, MpSource
from registry.errors import InputError
from registry.files.grids import GridStore
from tests.ingest.sources.mp.conftest import (
    PLAIN,
    densities_of,
    outcomes,
    values_of,
)
from tests.ingest.sources.mp_standin import KEY, RELEASE, Fault, Material, Standin, chgcar_object, rock_salt


@dataclass
class ListedSource:
    """A source with materials that were listed before: the client needs seconds to list them."""

    listed: list[SourceRecord]
    name: str = "mp"
    release: str | None = RELEASE
    remarks: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.listed)

    def records(self) -> Iterator[SourceRecord]:
        return iter(self.listed)


@pytest.fixture(scope="module")
def objects(whole: list[Material], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Standin, ListedSource]]:
    """A stand-in with objects that are to fail, and its materials listed before the failures."""
    folder = tmp_path_factory.mktemp("mp")
    limiter = RateLimiter(folder, per_second=1000, attempts=2, backoff=0.01)
    with Standin(whole).running() as standin:
        source = MpSource(
            MpSelection(fcc=True),
            folder=folder,
            access=MpAccess(key=KEY, limiter=limiter, endpoint=standin.url, object_endpoint=standin.url),
        )
        yield standin, ListedSource(list(source.records()))


def edited(change: Callable[[dict[str, Any]], Any]) -> Callable[[bytes], bytes]:
    return lambda body: gzip.compress(json.dumps(change(json.loads(gzip.decompress(body)))).encode())


def as_class(name: str) -> Callable[[dict[str, Any]], Any]:
    return lambda content: {"data": {**content["data"], "@class": name}}


def first_number(value: float) -> Callable[[bytes], bytes]:
    def change(content: dict[str, Any]) -> Any:
        content["data"]["data"]["total"]["data"][0][0][0] = value
        return content

    return edited(change)


@pytest.mark.parametrize(("ident", "key"), [("mp-149", "mp-149"), ("mp-ft", "mp-149"), ("mp-3347530", "mp-hilze")])
def test_object_keys_have_the_spelling_of_their_number(ident: str, key: str) -> None:
    assert object_key(ident) == f"chgcars/{key}.json.gz"
    assert number_of(ident) == number_of(key)


def test_decoded_density_equals_that_of_mp_api(standin: Standin, limiter: RateLimiter) -> None:
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


@pytest.mark.parametrize(
    ("fault", "outcome", "reason", "retried"),
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
def test_each_fault_of_an_object_has_an_outcome_and_only_a_missing_one_is_final(
    fault: Fault,
    outcome: str,
    reason: str,
    retried: bool,
    objects: tuple[Standin, ListedSource],
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
    # The rest of the material is stored, unless the material is deferred.
    assert bool(values_of(session, "mp-1")) is (outcome == "partial")

    standin.faults.clear()
    standin.log.clear()
    second = run()
    if retried:
        assert second.counts == {"unchanged": 2, "created" if outcome == "deferred" else "updated": 1}
        assert standin.requested_objects() == ["mp-2000001"]
        assert densities_of(session, "mp-1")["total"].n_electrons == pytest.approx(10)
    else:
        assert second.counts == {"unchanged": 3}
        assert standin.requested_objects() == []


def test_classes_named_in_an_object_are_not_imported(tmp_path: Path) -> None:
    data = chgcar_object(rock_salt("Na", "Cl", 5.6), 12)
    marker = tmp_path / "executed"
    bad = edited(lambda content: {**content, "x": {"@module": "pathlib", "@class": "Path", "args": [str(marker)]}})(
        data
    )
    structure, densities = decode_chgcar(bad, level_of_theory="GGA", provenance="")
    assert structure.formula == "Na1 Cl1"
    assert densities[0].n_electrons == pytest.approx(14)


def test_density_with_two_grid_shapes_is_damaged() -> None:
    def shorten(content: dict[str, Any]) -> Any:
        content["data"]["data"]["diff"] = {"data": [[[1.0]]]}
        return content

    data = edited(shorten)(chgcar_object(rock_salt("Na", "Cl", 5.6), 12))
    with pytest.raises(InputError, match="different shapes"):
        decode_chgcar(data, level_of_theory="GGA", provenance="")
