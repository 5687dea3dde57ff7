"""``ecdreg encoders``: featurizers of compositions as encoders."""

from __future__ import annotations

import json

from tests.conftest import Invoke


def test_encoder_of_compositions(invoke: Invoke, vectors: dict[str, list[float]]) -> None:
    made = json.loads(invoke("encoders", "add", "pettifor", "--json").stdout)
    assert [(row["encoder"], row["vectors"]) for row in made] == [("pettifor", 24)]
    near = json.loads(invoke("similar", "mp-6", "--encoder", "pettifor", "-k", 1, "--json").stdout)
    assert near[0]["formula"] == "ZrO", "of the oxides here, titanium's neighbour on the scale"
    assert "did you mean 'pettifor'" in invoke("encoders", "add", "petifor").stderr
