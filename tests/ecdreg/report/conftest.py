"""Fixtures of the reports."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from ecdreg.report.content import ReportContent, read_content
from registry.model_store import resolve_model


@pytest.fixture
def content(engine: Engine, models: SimpleNamespace) -> ReportContent:
    with Session(engine) as session:
        (model,) = resolve_model(session, "image:k_vrh")
        found = read_content(session, model.experiment, model.model_version)
        session.expunge_all()
        return found
