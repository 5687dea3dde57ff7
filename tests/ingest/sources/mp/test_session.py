"""Retries and failures of the HTTP session."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ingest.sources.mp.client import ApiKey, MpClient
from ingest.sources.mp.rate_limiter import RateLimiter
from registry.errors import SourceError
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


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_transient_status_is_retried(status: int, standin: Standin, client: MakeClient) -> None:
    standin.fail("/summary/", Fault(status=status, times=2))
    assert len(client().summaries(CUBIC, fields=FIELDS)) == 10


def test_truncated_body_is_retried(standin: Standin, client: MakeClient) -> None:
    standin.fail("/summary/", Fault(cut=True, times=2))
    assert len(client().summaries(CUBIC, fields=FIELDS)) == 10


def test_retry_after_is_respected(standin: Standin, client: MakeClient) -> None:
    one = client()
    assert one.database_version
    standin.fail("/summary/", Fault(status=429, headers={"Retry-After": "1"}, times=1))
    began = time.monotonic()
    one.summaries(CUBIC, fields=FIELDS)
    assert time.monotonic() - began >= 1


def test_retry_after_of_hours_is_an_error(standin: Standin, client: MakeClient) -> None:
    standin.fail("/summary/", Fault(status=503, headers={"Retry-After": "7200"}))
    with pytest.raises(SourceError, match="requires a delay of 7200 s"):
        client().summaries(CUBIC, fields=FIELDS)
    assert len(standin.requests("/summary/")) == 1


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
def test_other_failures_have_a_message_of_one_line(
    where: str, fault: Fault, message: str, standin: Standin, client: MakeClient
) -> None:
    standin.fail(where, fault)
    with pytest.raises(SourceError, match=message) as caught:
        client().summaries(CUBIC, fields=FIELDS)
    assert "\n" not in str(caught.value)
    assert KEY not in str(caught.value)


def test_missing_server_has_a_message_of_one_line(limiter: RateLimiter, mp_home: Path) -> None:
    with pytest.raises(SourceError, match=r"^http://127.0.0.1:9/heartbeat cannot be reached"):
        _ = MpClient(ApiKey(KEY), limiter, endpoint="http://127.0.0.1:9/").database_version


def test_blocked_address_is_not_retried(standin: Standin, client: MakeClient) -> None:
    standin.fail("/summary/", Fault(status=429, body=b'{"version": "blocked", "error": "too many requests"}'))
    with pytest.raises(SourceError, match="blocked the address of this machine"):
        client().summaries(CUBIC, fields=FIELDS)
    assert len(standin.requests("/summary/")) == 1


def test_blocked_heartbeat_is_not_retried(standin: Standin, client: MakeClient) -> None:
    standin.version = "blocked"
    with pytest.raises(SourceError, match="blocked the address of this machine"):
        client().summaries(CUBIC, fields=FIELDS)
    assert standin.requests("/summary/") == []


def test_key_is_not_sent_to_a_redirected_host(standin: Standin, client: MakeClient) -> None:
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
