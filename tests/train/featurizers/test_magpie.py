from __future__ import annotations

import numpy as np
import pytest

from registry.errors import InputError
from train.featurizers.magpie import MAGPIE_DIM, magpie_features, magpie_labels


def test_magpie_features_of_rock_salt() -> None:
    labels = magpie_labels()
    features = dict(zip(labels, magpie_features(["NaCl"])[0], strict=True))
    assert len(labels) == MAGPIE_DIM
    assert features["MagpieData minimum Number"] == 11
    assert features["MagpieData maximum Number"] == 17
    assert features["MagpieData range Number"] == 6
    assert features["MagpieData mean Number"] == 14
    assert features["MagpieData avg_dev Number"] == 3
    assert features["MagpieData mean Electronegativity"] == pytest.approx((0.93 + 3.16) / 2)


def test_features_depend_on_the_composition_alone() -> None:
    a, b, c = magpie_features(["Ru2TiGe", "GeTiRu2", "Ru4Ti2Ge2"])
    np.testing.assert_allclose(a, b)
    np.testing.assert_allclose(a, c)


def test_formula_nan_is_sodium_nitride() -> None:
    features = magpie_features(["NaN", "Na3N"])
    assert np.isfinite(features).all()
    assert features[0, magpie_labels().index("MagpieData mean Number")] == 9


def test_missing_properties_are_imputed_by_the_mean_over_elements() -> None:
    column = magpie_labels().index("MagpieData mean Electronegativity")
    neon, argon = magpie_features(["Ne", "Ar"])
    assert neon[column] == argon[column]
    assert 1 < neon[column] < 2.5
    assert np.isfinite([neon, argon]).all()


def test_empty_input_gives_empty_features() -> None:
    assert magpie_features([]).shape == (0, MAGPIE_DIM)


@pytest.mark.parametrize("formula", ["", "Xx", "OgO2", "not a formula", "Na("])
def test_unreadable_formulas_raise(formula: str) -> None:
    with pytest.raises(InputError, match="formula"):
        magpie_features([formula])
