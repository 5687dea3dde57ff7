from __future__ import annotations

import numpy as np
import pytest

from registry.errors import InputError
from train.featurizers.composition import composition_features, composition_groups, composition_labels
from train.featurizers.magpie import MAGPIE_DIM, magpie_features


def described(formula: str) -> dict[str, float]:
    return dict(zip(composition_labels(), composition_features([formula])[0], strict=True))


def test_names_and_groups() -> None:
    labels, groups = composition_labels(), composition_groups()
    assert len(set(labels)) == len(labels) == sum(groups.values())
    assert list(groups) == ["magpie", "mixing", "elements", "roles"]
    assert groups["magpie"] == MAGPIE_DIM
    np.testing.assert_array_equal(composition_features(["NaCl"])[:, :MAGPIE_DIM], magpie_features(["NaCl"]))
    assert composition_features([]).shape == (0, len(labels))


def test_features_of_a_heusler_compound() -> None:
    found = described("Ru2TiGe")
    assert found["elements Ru"] == 0.5
    assert found["elements Ti"] == found["elements Ge"] == 0.25
    assert [found[f"roles {role} Number"] for role in "XYZ"] == [44, 22, 32]
    assert [found[f"roles {role} fraction"] for role in "XYZ"] == [0.5, 0.25, 0.25]
    chi = np.array([2.2, 1.54, 2.01])
    fractions = np.array([0.5, 0.25, 0.25])
    expected = sum(a * b * (x - y) ** 2 for a, x in zip(fractions, chi, strict=True)
                   for b, y in zip(fractions, chi, strict=True))  # fmt: skip
    assert found["mixing pairs Electronegativity"] == pytest.approx(expected)
    assert found["roles number of elements"] == 3


def test_an_element_is_not_mixed() -> None:
    found = described("Al")
    assert [found[f"roles {role} Number"] for role in "XYZ"] == [13, 13, 13]
    assert found["mixing pairs Miedema"] == 0
    assert found["mixing Voigt BulkModulus"] == pytest.approx(76)
    assert found["mixing Reuss BulkModulus"] == pytest.approx(76)
    assert found["mixing geometric BulkModulus"] == pytest.approx(76)


def test_the_order_of_a_formula_does_not_matter() -> None:
    np.testing.assert_allclose(composition_features(["TiRu2Ge"]), composition_features(["GeTiRu2"]), rtol=1e-12)
    np.testing.assert_allclose(composition_features(["Na2Cl2"]), composition_features(["NaCl"]), rtol=1e-12)


def test_every_element_of_the_table_has_features() -> None:
    formulas = ["He", "Ar", "LaB6", "ThO2", "UC", "YbTe", "NaN"]
    assert np.isfinite(composition_features(formulas)).all()
    with pytest.raises(InputError):
        composition_features(["Xx2O"])
