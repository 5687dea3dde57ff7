"""What is asked of the Materials Project, how politely, and what becomes of every way to fail."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from ingest.sources.mp.client import ApiKey, MpClient
from ingest.sources.mp.objects import ObjectStore, object_key
from ingest.sources.mp.rate_limiter import RateLimiter, parse_retry_after
from registry.errors import ConfigurationError, SourceError
from tests.ingest.sources.mp_standin import KEY, Fault, Material, Standin, material

FIELDS = ("material_id", "efermi", "bulk_modulus")
CUBIC = {"crystal_system": "Cubic", "is_stable": True}


@pytest.fixture(scope="module")
def ten() -> list[Material]:
    """Ten materials with small grids."""
    return [material(number, points=12) for number in range(1, 11)]


@pytest.fixture
def standin(ten: list[Material], mp_home: Path) -> Iterator[Standin]:
    with Standin(list(ten)).running() as standin:
        yield standin


@pytest.fixture
def limiter(tmp_path: Path) -> RateLimiter:
    return RateLimiter(tmp_path / "mp", per_second=1000, attempts=3, backoff=0.01)


@pytest.fixture
def client(standin: Standin, limiter: RateLimiter) -> Callable[..., MpClient]:
    def make(**changes: object) -> MpClient:
        return MpClient(ApiKey(KEY), limiter, endpoint=standin.url, **changes)  # type: ignore[arg-type]

    return make


# --------------------------------------------------------------------------------- pages


def test_a_page_that_is_silently_empty_is_asked_for_again(standin: Standin, client: Callable[..., MpClient]) -> None:
    standin.fail("/summary/", Fault(empty=True, times=1, skip=1))
    found = client(page_size=4).summaries(CUBIC, fields=FIELDS)
    assert sorted(document["material_id"] for document in found) == sorted(standin.materials)
    skips = [query.get("_skip", "0") for query in standin.asked("/summary/") if "_limit" in query]
    # The client ends at the empty second page; the second series has all three.
    assert skips == ["0", "4", "0", "4", "8"]


def test_a_series_that_stays_short_is_an_error(standin: Standin, client: Callable[..., MpClient]) -> None:
    standin.fail("/summary/", Fault(change=lambda body: body.replace(b'"total_doc": 10', b'"total_doc": 12')))
    with pytest.raises(SourceError, match="counts 12 materials and sent 10, 3 times"):
        client().summaries(CUBIC, fields=FIELDS)


def test_the_first_document_does_not_decide_what_the_others_have(
    standin: Standin, client: Callable[..., MpClient]
) -> None:
    first = standin.materials["mp-1"]
    summary = {name: value for name, value in first.summary.items() if name != "bulk_modulus"}
    standin.materials = {**standin.materials, "mp-1": replace(first, summary=summary)}
    found = client().summaries(CUBIC, fields=FIELDS)
    assert sum("bulk_modulus" in document for document in found) == 9


def test_ids_that_are_missing_are_asked_for_once_more(standin: Standin, client: Callable[..., MpClient]) -> None:
    standin.fail("/summary/", Fault(empty=True, times=1))
    found = client().summaries_by_id(["mp-1", "mp-2", "mp-999"], fields=FIELDS)
    assert sorted(found) == ["mp-1", "mp-2"]
    series = [query["material_ids"] for query in standin.asked("/summary/") if "_skip" not in query]
    assert series == ["mp-1,mp-2,mp-999"] * 2


def test_long_lists_are_asked_in_parts(standin: Standin, client: Callable[..., MpClient]) -> None:
    client().tasks([f"mp-{number}" for number in range(1, 251)])
    # The client asks for both spellings of each id.
    assert [query["task_ids"].count(",") + 1 for query in standin.asked("/tasks/")] == [200, 200, 100]


# -------------------------------------------------------------------------------- faults


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again(status: int, standin: Standin, client: Callable[..., MpClient]) -> None:
    standin.fail("/summary/", Fault(status=status, times=2))
    assert len(client().summaries(CUBIC, fields=FIELDS)) == 10


def test_a_body_that_is_cut_off_is_tried_again(standin: Standin, client: Callable[..., MpClient]) -> None:
    standin.fail("/summary/", Fault(cut=True, times=2))
    assert len(client().summaries(CUBIC, fields=FIELDS)) == 10


def test_the_pause_that_is_asked_for_is_kept(standin: Standin, client: Callable[..., MpClient]) -> None:
    one = client()
    assert one.database_version
    standin.fail("/summary/", Fault(status=429, headers={"Retry-After": "1"}, times=1))
    began = time.monotonic()
    one.summaries(CUBIC, fields=FIELDS)
    assert time.monotonic() - began >= 1


def test_a_pause_of_hours_is_an_error_at_once(standin: Standin, client: Callable[..., MpClient]) -> None:
    standin.fail("/summary/", Fault(status=503, headers={"Retry-After": "7200"}))
    with pytest.raises(SourceError, match="requires a delay of 7200 s"):
        client().summaries(CUBIC, fields=FIELDS)
    assert len(standin.asked("/summary/")) == 1


@pytest.mark.parametrize(
    ("where", "fault", "message"),
    [
        ("/summary/", Fault(status=503), r"/materials/summary/ cannot be reached, after 3 attempts \(status 503\)"),
        ("/summary/", Fault(status=400, body=b"{}"), "does not support the request"),
        ("/summary/", Fault(change=lambda body: b"<html>maintenance</html>"), "JSONDecodeError"),
        ("/summary/", Fault(change=lambda body: b"{}"), "KeyError"),
        ("/heartbeat", Fault(status=502), "heartbeat cannot be reached, after 3 attempts"),
        ("/heartbeat", Fault(status=404), "heartbeat answers 404"),
        ("/heartbeat", Fault(change=lambda body: b"<html>maintenance</html>"), "JSONDecodeError"),
        ("/heartbeat", Fault(change=lambda body: b"{}"), "does not contain a database version"),
    ],
)
def test_every_other_failure_is_one_line(
    where: str, fault: Fault, message: str, standin: Standin, client: Callable[..., MpClient]
) -> None:
    standin.fail(where, fault)
    with pytest.raises(SourceError, match=message) as told:
        client().summaries(CUBIC, fields=FIELDS)
    assert "\n" not in str(told.value)
    assert KEY not in str(told.value)


def test_no_server_is_one_line(limiter: RateLimiter, mp_home: Path) -> None:
    with pytest.raises(SourceError, match=r"^http://127.0.0.1:9/heartbeat cannot be reached"):
        _ = MpClient(ApiKey(KEY), limiter, endpoint="http://127.0.0.1:9/").database_version


def test_a_blocked_address_stops_at_once(standin: Standin, client: Callable[..., MpClient]) -> None:
    standin.fail("/summary/", Fault(status=429, body=b'{"version": "blocked", "error": "too many requests"}'))
    with pytest.raises(SourceError, match="blocked the address of this machine"):
        client().summaries(CUBIC, fields=FIELDS)
    assert len(standin.asked("/summary/")) == 1


def test_a_heartbeat_that_says_blocked_stops_at_once(standin: Standin, client: Callable[..., MpClient]) -> None:
    standin.version = "blocked"
    with pytest.raises(SourceError, match="blocked the address of this machine"):
        client().summaries(CUBIC, fields=FIELDS)
    assert standin.asked("/summary/") == []


# ----------------------------------------------------------------------------------- key


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_says_where_to_get_one(status: int, standin: Standin, client: Callable[..., MpClient]) -> None:
    standin.fail("/materials/", Fault(status=status))
    with pytest.raises(
        SourceError, match=r"refuses the key in MP_API_KEY .*https://next-gen\.materialsproject\.org/api"
    ):
        client().summaries(CUBIC, fields=FIELDS)
    assert len(standin.asked("/summary/")) == 1


@pytest.mark.parametrize("value", [None, "", "  ", "short", KEY + "x", KEY[:-1] + "\n", KEY[:-1] + "ä"])
def test_what_cannot_be_a_key_says_where_to_get_one_and_not_what_it_is(value: str | None) -> None:
    with pytest.raises(ConfigurationError, match=r"next-gen\.materialsproject\.org/api") as told:
        ApiKey(value)
    assert not value or not value.strip() or value.strip() not in str(told.value)


def test_a_key_shows_itself_nowhere(client: Callable[..., MpClient]) -> None:
    key = ApiKey(KEY)
    one = client()
    assert KEY not in f"{key!r} {key} {one!r} {one} {vars(one)}"
    assert key.redact(f"bad key {KEY}!") == "bad key [key]!"
    with pytest.raises(TypeError, match="stays in its process"):
        pickle.dumps(key)


def test_the_key_goes_to_no_host_that_was_not_asked(standin: Standin, client: Callable[..., MpClient]) -> None:
    seen: list[str | None] = []
    with Standin([]).running() as other:
        other.keys = set()
        other.fail("/materials/", Fault(status=418))
        other.note = lambda *_: seen.append(None)  # type: ignore[method-assign]
        elsewhere = other.url.replace("127.0.0.1", "localhost")
        standin.fail("/summary/", Fault(status=307, headers={"Location": f"{elsewhere}/materials/summary/"}))
        one = client()
        session = one._session
        sent = []
        original = session.rebuild_auth

        def rebuild(prepared: object, response: object) -> None:
            original(prepared, response)  # type: ignore[arg-type]
            sent.append(dict(prepared.headers))  # type: ignore[attr-defined]

        session.rebuild_auth = rebuild  # type: ignore[method-assign]
        with pytest.raises(SourceError):
            one.summaries(CUBIC, fields=FIELDS)
        assert sent
        assert not any(KEY in headers.values() for headers in sent)


# ------------------------------------------------------------------------------- limiter


def test_requests_keep_to_the_rate_in_all_threads_together(tmp_path: Path) -> None:
    limiter = RateLimiter(tmp_path, per_second=50)
    began = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: limiter.wait_for_turn(), range(21)))
    assert time.monotonic() - began >= 20 / 50 - 0.005


def test_a_clock_that_was_put_back_holds_nobody_up(tmp_path: Path) -> None:
    limiter = RateLimiter(tmp_path)
    (tmp_path / "pace").write_text(f"{time.time() + 1e6}")
    began = time.monotonic()
    limiter.wait_for_turn()
    assert time.monotonic() - began < 60
    (tmp_path / "pace").write_text("17e")  # cut off
    limiter.wait_for_turn()


def test_no_more_downloads_than_four_at_a_time(standin: Standin, limiter: RateLimiter) -> None:
    standin.stall_after = 0
    store = ObjectStore(limiter, standin.url)
    keys = [object_key(task) for one in standin.materials.values() for task in one.objects]
    with ThreadPoolExecutor(10) as pool:
        fetched = pool.map(store.fetch, keys)
        while standin.busy < 4:
            time.sleep(0.01)
        time.sleep(0.3)  # time enough for a fifth
        standin.stall_after = None
        sizes = [len(one.data) for one in fetched]
    assert len(sizes) == 10
    assert standin.busiest == 4
    assert standin.leaks == []


def test_a_place_for_a_download_is_free_again_after_an_error(tmp_path: Path) -> None:
    limiter = RateLimiter(tmp_path, downloads=1)
    with pytest.raises(RuntimeError), limiter.download_slot():
        raise RuntimeError
    taken = threading.Event()

    def take() -> None:
        with limiter.download_slot():
            taken.set()

    thread = threading.Thread(target=take)
    thread.start()
    thread.join(60)
    assert taken.is_set()


@pytest.mark.parametrize(("text", "seconds"), [(None, None), ("12", 12.0), ("soon", None)])
def test_retry_after_in_seconds(text: str | None, seconds: float | None) -> None:
    assert parse_retry_after(text) == seconds


def test_retry_after_as_a_date() -> None:
    assert parse_retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert (parse_retry_after("Wed, 21 Oct 2415 07:28:00 GMT") or 0) > 1e9
