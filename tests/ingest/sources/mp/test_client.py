"""Requests of the client: pages, ids, and the API key."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from ingest.sources.mp.client import ApiKey
from ingest.sources.mp.rate_limiter import RateLimiter
from registry.errors import ConfigurationError, SourceError
from tests.ingest.sources.mp.conftest import (
    MakeClient,
)
from tests.ingest.sources.mp_standin import KEY, Fault, Material, Standin, material

FIELDS = ("material_id", "efermi", "bulk_modulus")


CUBIC = {"crystal_system": "Cubic", "is_stable": True}


@pytest.fixture(scope="module")
def whole() -> list[Material]:
    """Ten materials with small grids."""
    return [material(number, points=12) for number in range(1, 11)]


@pytest.fixture
def limiter(tmp_path: Path) -> RateLimiter:
    """A rate limiter without noticeable waits, for three attempts."""
    return RateLimiter(tmp_path / "mp", per_second=1000, attempts=3, backoff=0.01)


def test_empty_page_is_requested_again(standin: Standin, client: MakeClient) -> None:
    standin.fail("/summary/", Fault(empty=True, times=1, skip=1))
    found = client(page_size=4).summaries(CUBIC, fields=FIELDS)
    assert sorted(document["material_id"] for document in found) == sorted(standin.materials)
    skips = [query.get("_skip", "0") for query in standin.requests("/summary/") if "_limit" in query]
    # The client ends at the empty second page; the second series has all three.
    assert skips == ["0", "4", "0", "4", "8"]


def test_series_that_stays_incomplete_is_an_error(standin: Standin, client: MakeClient) -> None:
    standin.fail("/summary/", Fault(change=lambda body: body.replace(b'"total_doc": 10', b'"total_doc": 12')))
    with pytest.raises(SourceError, match="counts 12 materials and sent 10, 3 times"):
        client().summaries(CUBIC, fields=FIELDS)


def test_fields_missing_in_the_first_document_are_kept_in_the_others(standin: Standin, client: MakeClient) -> None:
    first = standin.materials["mp-1"]
    summary = {name: value for name, value in first.summary.items() if name != "bulk_modulus"}
    standin.materials = {**standin.materials, "mp-1": replace(first, summary=summary)}
    found = client().summaries(CUBIC, fields=FIELDS)
    assert sum("bulk_modulus" in document for document in found) == 9


def test_missing_ids_are_requested_once_more(standin: Standin, client: MakeClient) -> None:
    standin.fail("/summary/", Fault(empty=True, times=1))
    found = client().summaries_by_id(["mp-1", "mp-2", "mp-999"], fields=FIELDS)
    assert sorted(found) == ["mp-1", "mp-2"]
    series = [query["material_ids"] for query in standin.requests("/summary/") if "_skip" not in query]
    assert series == ["mp-1,mp-2,mp-999"] * 2


def test_long_lists_are_requested_in_parts(standin: Standin, client: MakeClient) -> None:
    client().tasks([f"mp-{number}" for number in range(1, 251)])
    # The client requests both spellings of each id.
    assert [query["task_ids"].count(",") + 1 for query in standin.requests("/tasks/")] == [200, 200, 100]


@pytest.mark.parametrize("status", [401, 403])
def test_message_of_a_refused_key_contains_the_url_of_keys(status: int, standin: Standin, client: MakeClient) -> None:
    standin.fail("/materials/", Fault(status=status))
    with pytest.raises(
        SourceError, match=r"refuses the key in MP_API_KEY .*https://next-gen\.materialsproject\.org/api"
    ):
        client().summaries(CUBIC, fields=FIELDS)
    assert len(standin.requests("/summary/")) == 1


@pytest.mark.parametrize("value", [None, "", "  ", "short", KEY + "x", KEY[:-1] + "\n", KEY[:-1] + "ä"])
def test_message_of_an_invalid_key_contains_the_url_and_not_the_value(value: str | None) -> None:
    with pytest.raises(ConfigurationError, match=r"next-gen\.materialsproject\.org/api") as caught:
        ApiKey(value)
    assert not value or not value.strip() or value.strip() not in str(caught.value)


def test_key_is_hidden_in_printed_forms(client: MakeClient) -> None:
    key = ApiKey(KEY)
    one = client()
    assert KEY not in f"{key!r} {key} {one!r} {one} {vars(one)}"
    assert key.redact(f"bad key {KEY}!") == "bad key [key]!"
    with pytest.raises(TypeError, match="stays in its process"):
        pickle.dumps(key)
