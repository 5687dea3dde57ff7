"""Options of an ingest."""

from __future__ import annotations

import pytest

from ingest.preparation.options import IngestOptions
from registry.errors import ConfigurationError


@pytest.mark.parametrize(
    "wrong", [{"texts": "some"}, {"assume_fcc": True}, {"limit": 0}, {"workers": -1}, {"recipes": ("metric", "metric")}]
)
def test_invalid_options_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        IngestOptions(**wrong)  # type: ignore[arg-type]


def test_slim_without_a_recipe_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="there is no recipe"):
        IngestOptions(recipes=(), slim=True)
    assert IngestOptions(slim=True).fingerprint() != IngestOptions().fingerprint()
    assert IngestOptions(refresh=True).fingerprint() == IngestOptions().fingerprint()
