"""Search by properties: filters, known and predicted values, ranking."""

from __future__ import annotations

import pytest
from sqlalchemy.orm import Session

from registry.errors import ConfigurationError


def test_filters_of_elements(session: Session) -> None:
    from train.discovery.property_search import Elements

    chosen = Elements(("Ti", "Zr"), ("O",), ("Pb",))
    assert chosen.allow(["O", "Ti"])
    assert not chosen.allow(["O", "Mg"])
    assert not chosen.allow(["Ti", "N"])
    assert not chosen.allow(["O", "Pb", "Ti"])
    with pytest.raises(ConfigurationError, match="not an element"):
        Elements(("TiO",))
