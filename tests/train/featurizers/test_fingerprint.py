"""The fingerprint: its scales belong to its features, stored parts give what files give, and searches use it."""

from __future__ import annotations

import csv
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, text

from registry.errors import ConfigurationError, ModelError
from tests.conftest import Invoke
from tests.train.conftest import SmallRegistry
from train.config.kinds import parse_config
from train.featurizers.composition import composition_features, composition_labels
from train.featurizers.density import density_labels
from train.featurizers.fingerprint import PARTS, PETTIFOR_WEIGHT, fingerprint, fingerprint_dim
from train.featurizers.pettifor import PETTIFOR_DIM, pettifor_features


def parts_of(formulas: list[str], density: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    return {
        "elements": composition_features(formulas),
        "density-statistics": density,
        "pettifor": pettifor_features(formulas),
    }


def test_every_scale_is_of_the_feature_in_its_place() -> None:
    with files("train.featurizers").joinpath("fingerprint.csv").open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    for name, labels in (("elements", composition_labels()), ("density-statistics", density_labels())):
        assert [row["label"] for row in rows if row["features"] == name] == list(labels)


def test_every_part_has_its_weight_and_outliers_are_clamped() -> None:
    rng = np.random.default_rng(0)
    density = rng.normal(size=(3, len(density_labels())))
    parts = parts_of(["NaCl", "MgO", "Ru2TiGe"], density)
    vectors = fingerprint(parts)
    assert vectors.shape == (3, fingerprint_dim())
    np.testing.assert_allclose(np.linalg.norm(vectors[:, -PETTIFOR_DIM:], axis=1), PETTIFOR_WEIGHT, rtol=1e-6)
    # Two blocks whose features lie some standard deviations from their mean at most: lengths of order 1, 4 at most.
    assert (np.linalg.norm(vectors[:, :-PETTIFOR_DIM], axis=1) < 4 * np.sqrt(2)).all()
    far = fingerprint({**parts, "density-statistics": density * 1e12})
    assert np.abs(far).max() <= PETTIFOR_WEIGHT
    # A crystal's vector is its own, whoever stands beside it.
    alone = {name: values[1:2] for name, values in parts.items()}
    np.testing.assert_array_equal(fingerprint(alone), vectors[1:2])
    with pytest.raises(ModelError, match="'density-statistics' of shape"):
        fingerprint({**parts, "density-statistics": density[:, 1:]})


def test_stored_parts_give_what_files_give_and_searches_use_it(invoke: Invoke, engine: Engine, home: Path) -> None:
    from sqlalchemy.orm import Session

    from registry.encoders import read_embeddings, resolve_encoder
    from registry.files.grids import GridStore
    from train.features.crystals import read_crystals
    from train.featurizers.catalog import load_featurizer
    from train.modalities.density_grids import load_densities
    from train.modalities.features import DensityFeatures

    assert invoke("ingest", "--source", "sample", "--limit", "4", "--workers", "0").exit_code == 0
    assert invoke("encoders", "add", "pettifor").exit_code == 0
    made = invoke("encoders", "add", "fingerprint", "--json")
    assert made.exit_code == 0, made.stderr
    (row,) = json.loads(made.stdout)
    assert (row["encoder"], row["modality"], row["dim"], row["vectors"]) == (
        "fingerprint", "density", fingerprint_dim(), 4,
    )  # fmt: skip
    with Session(engine) as session:
        encoder = resolve_encoder(session)  # it is the default now, and not the one that was there before
        assert encoder.name == "fingerprint"
        stored = read_embeddings(session, encoder.id)
        inputs = read_crystals(session, {"density": DensityFeatures()})
        grids = load_densities(
            session,
            GridStore((home / "grids").as_uri()),
            inputs.revision_ids.tolist(),
            inputs.columns["density"].values,
        )
        whole = load_featurizer("density", "fingerprint").features(grids)
    for rid, vector in zip(inputs.revision_ids, whole, strict=True):
        np.testing.assert_allclose(stored[int(rid)][1], vector, atol=1e-6)
    assert set(load_featurizer("density", "fingerprint").parts) == set(PARTS)  # type: ignore[attr-defined]
    source_id = inputs.source_ids[0]
    answer = json.loads(invoke("similar", source_id, "-k", "2", "--json").stdout)
    assert len(answer) == 2


def test_a_density_tower_reads_no_composition(small: SmallRegistry) -> None:
    config = parse_config({"kind": "density", "target": "k_vrh", "density_backbone": "fingerprint"})
    with pytest.raises(
        ConfigurationError, match="the density features are 'fingerprint', which contain the composition too"
    ):
        small.run(config)


def test_the_error_of_a_missing_fingerprint_names_the_command(invoke: Invoke, engine: Engine) -> None:
    assert invoke("ingest", "--source", "sample", "--limit", "2", "--workers", "0").exit_code == 0
    assert invoke("encoders", "add", "fingerprint").exit_code == 0
    assert invoke("ingest", "--source", "sample", "--limit", "3", "--workers", "0").exit_code == 0
    with engine.connect() as connection:
        missing = connection.scalar(
            text(
                "SELECT source_id FROM v_materials m WHERE NOT EXISTS"
                " (SELECT FROM embeddings e WHERE e.revision_id = m.revision_id)"
            )
        )
    refused = invoke("similar", missing)
    assert refused.exit_code == 1
    assert "`ecdreg encoders add fingerprint` computes missing embeddings" in refused.stderr
