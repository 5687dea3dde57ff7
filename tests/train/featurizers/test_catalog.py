from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from registry.checksums import json_sha256
from registry.errors import ConfigurationError, ModelError, UnknownNameError
from train.featurizers.catalog import COMPOSITION_FEATURIZERS, DENSITY_FEATURIZERS, FixedFeaturizer, load_featurizer
from train.modalities import restore_featurizer


def test_featurizers_need_no_torch() -> None:
    code = (
        "import sys; from train.featurizers.catalog import load_featurizer;"
        "load_featurizer('composition', 'pettifor').features(['NaCl']); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("modality", "name"),
    [("composition", name) for name in COMPOSITION_FEATURIZERS] + [("density", name) for name in DENSITY_FEATURIZERS],
)
def test_a_featurizer_is_identified_by_its_description(modality: str, name: str) -> None:
    featurizer = load_featurizer(modality, name)
    assert (featurizer.name, featurizer.modality) == (name, modality)
    assert len(featurizer.groups) == featurizer.dim
    assert featurizer.weights_sha256 == json_sha256(featurizer.preprocessing())
    again = restore_featurizer(featurizer.spec())
    assert again.weights_sha256 == featurizer.weights_sha256


def test_features_are_float32_in_the_given_order() -> None:
    featurizer = load_featurizer("composition", "magpie")
    both, one = featurizer.features(["NaCl", "TiC"]), featurizer.features(["TiC"])
    assert both.shape == (2, featurizer.dim)
    assert both.dtype == np.float32
    np.testing.assert_array_equal(both[1:], one)
    assert featurizer.features([]).shape == (0, featurizer.dim)


def test_unusable_requests_raise() -> None:
    with pytest.raises(UnknownNameError, match="magpie"):
        load_featurizer("composition", "magpi")
    with pytest.raises(ConfigurationError, match="image"):
        load_featurizer("image", "magpie")
    broken = FixedFeaturizer("b", "density", dim=1, compute=lambda _: np.array([[0.0], [np.nan]]), about={})
    with pytest.raises(ModelError, match="input number 1"):
        broken.features([None, None])
