"""Tests of the requirements on the versions of PostgreSQL and pgvector."""

from __future__ import annotations

import pytest

from registry.errors import UnsuitableServerError
from registry.postgres.requirements import check_versions


@pytest.mark.parametrize(
    ("server", "vector", "message"),
    [
        ("14.11", "0.8.6", "PostgreSQL 14.11; ecdreg needs 15"),
        ("17.2 (Debian 17.2-1)", "0.7.4", r"pgvector 0.7.4; ecdreg needs 0.8.0 .*ALTER EXTENSION vector UPDATE"),
    ],
)
def test_old_versions_are_refused(server: str, vector: str, message: str) -> None:
    with pytest.raises(UnsuitableServerError, match=message):
        check_versions(server, vector)


def test_a_pgvector_with_known_faults_gives_a_warning() -> None:
    with pytest.warns(UserWarning, match=r"0\.8\.1; 0\.8\.4 and newer"):
        check_versions("18.1", "0.8.1")
    check_versions("18.1", "0.8.4")
