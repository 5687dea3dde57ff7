from __future__ import annotations

import numpy as np
import pytest

from registry.errors import InputError
from train.featurizers.catalog import load_featurizer
from train.featurizers.pettifor import PETTIFOR_DIM, STOICHIOMETRY, pettifor_distances, pettifor_features


def test_distance_is_the_way_that_atoms_move() -> None:
    # Ti is place 51, Hf 50, Zr 49, C 95.
    apart = pettifor_distances(["TiC", "Ti"], ["TiC", "ZrC", "HfC", "C", "CTi", "Ti2C2"])
    assert apart[0].tolist() == pytest.approx([0.0, 1.0, 0.5, 22.0, 0.0, 0.0])
    assert apart[1, 3] == pytest.approx(44.0)


def test_distance_is_a_metric() -> None:
    formulas = ["MgO", "TiC", "Ru2TiGe", "NaCl", "K2PtCl6", "W"]
    d = pettifor_distances(formulas, formulas)
    assert np.allclose(d, d.T)
    assert np.allclose(np.diag(d), 0)
    assert (d[:, :, None] <= d[:, None, :] + d[None, :, :].transpose(0, 2, 1) + 1e-9).all()


def test_near_elements_are_near_vectors() -> None:
    tic, hfc, nac, ti2c = pettifor_features(["TiC", "HfC", "NaC", "Ti2C"])
    assert tic.shape == (PETTIFOR_DIM,)

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    assert cosine(tic, hfc) > cosine(tic, nac)
    assert tic[103:105].tolist() == [0.5 * STOICHIOMETRY] * 2
    assert ti2c[103] == pytest.approx(STOICHIOMETRY * 2 / 3)
    alone = pettifor_features(["Ru"])[0][:103]  # in the middle of the scale
    assert np.linalg.norm(alone) == pytest.approx(1.0, abs=1e-3)


def test_the_order_of_a_formula_does_not_matter() -> None:
    assert np.array_equal(*pettifor_features(["TiO2", "O4Ti2"]))


def test_elements_off_the_scale_raise() -> None:
    with pytest.raises(InputError, match="Rf is not on"):
        pettifor_features(["RfC"])
    with pytest.raises(InputError):
        pettifor_features(["no formula"])


def test_as_a_backbone() -> None:
    backbone = load_featurizer("composition", "pettifor")
    assert backbone.features(["TiC", "W"]).shape == (2, PETTIFOR_DIM)
    assert backbone.preprocessing()["width"] == 2.0
