from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from registry.errors import ConfigurationError, ModelError
from tests.train.conftest import flat_config
from train.backbones.devices import choose_device
from train.config.phases import PhaseConfig
from train.models.building import build_network
from train.models.networks import Network
from train.models.optimization import EpochRecord, fit, predict, take, to_inputs

CONFIG = flat_config("image", "k_vrh", image_widths=(32, 16), image_dropout=0.1)


def network(seed: int = 0, dim: int = 6) -> Network:
    return build_network(CONFIG, {"image": dim}, seed)


def rows(n: int, dim: int = 6, seed: int = 0) -> tuple[dict[str, Tensor], np.ndarray]:
    x = np.random.default_rng(seed).normal(size=(n, dim))
    y = x[:, 0] - 0.5 * x[:, 1] ** 2
    return {"image": torch.tensor(x, dtype=torch.float32)}, (y - y.mean()) / y.std()


def test_it_learns() -> None:
    net = network()
    inputs, y = rows(200)
    result = fit(net, inputs, y, phase=PhaseConfig(learning_rate=3e-3), seed=0, epochs=60)
    assert [record.epoch for record in result.history] == list(range(1, 61))
    assert result.best_epoch == 60
    assert result.history[-1].train_loss < 0.3 * result.history[0].train_loss
    unseen, truth = rows(200, seed=1)
    assert np.mean((predict(net, unseen) - truth) ** 2) < 0.4


def test_same_seed_same_numbers() -> None:
    inputs, y = rows(70)
    stop = rows(20, seed=1)

    def run(seed: int) -> tuple[list[tuple[float, float | None]], np.ndarray]:
        torch.manual_seed(int(np.random.default_rng().integers(1000)))  # whatever the caller's state is
        net = network()
        result = fit(net, inputs, y, phase=PhaseConfig(learning_rate=1e-3, max_epochs=12), seed=seed, stop=stop)
        return [(r.train_loss, r.stop_loss) for r in result.history], predict(net, inputs)

    (history, predicted), (again, predicted_again) = run(3), run(3)
    assert history == again
    np.testing.assert_array_equal(predicted, predicted_again)
    assert run(4)[0] != history


def test_the_random_state_of_the_caller_is_restored() -> None:
    inputs, y = rows(20)
    before = torch.random.get_rng_state()
    fit(network(), inputs, y, phase=PhaseConfig(learning_rate=1e-3), seed=0, epochs=2)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_early_stopping_restores_the_best_weights() -> None:
    inputs, y = rows(40)
    unrelated = (rows(15, seed=7)[0], np.random.default_rng(0).normal(size=15))
    net = network()
    result = fit(net, inputs, y, phase=PhaseConfig(learning_rate=1e-2, patience=5), seed=0, stop=unrelated)
    losses = [record.stop_loss for record in result.history]
    assert result.best_epoch == 1 + int(np.argmin(np.array(losses, dtype=float)))
    assert len(result.history) == result.best_epoch + 5
    kept = np.mean((predict(net, unrelated[0]) - unrelated[1]) ** 2)
    assert kept == pytest.approx(min(losses), rel=1e-5)  # type: ignore[type-var]


def test_early_stopping_never_trains_on_the_stop_rows() -> None:
    inputs, y = rows(40)
    x, truth = rows(15, seed=7)
    one, two = network(), network()
    phase = PhaseConfig(learning_rate=1e-3, patience=3)
    fit(one, inputs, y, phase=phase, seed=0, stop=(x, truth), epochs=3)
    result = fit(two, inputs, y, phase=phase, seed=0, stop=(x, -truth), epochs=3)
    # Other stop targets may choose another epoch, never other weights of an epoch.
    again = network()
    fit(again, inputs, y, phase=phase, seed=0, epochs=result.best_epoch)
    for a, b in zip(two.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_epochs_bound_a_fit_with_stop_rows() -> None:
    inputs, y = rows(40)
    result = fit(
        network(),
        inputs,
        y,
        phase=PhaseConfig(learning_rate=1e-4, max_epochs=9),
        seed=0,
        stop=rows(9, seed=1),
        epochs=4,
    )
    assert len(result.history) == 4
    result = fit(
        network(), inputs, y, phase=PhaseConfig(learning_rate=1e-4, max_epochs=9), seed=0, stop=rows(9, seed=1)
    )
    assert len(result.history) <= 9


@pytest.mark.parametrize("n", [2, 3, 32, 33, 65])
def test_a_last_batch_of_one_row_does_not_break_batchnorm(n: int) -> None:
    inputs, y = rows(n)
    result = fit(network(), inputs, y, phase=PhaseConfig(learning_rate=1e-3, batch_size=32), seed=0, epochs=2)
    assert all(math.isfinite(record.train_loss) for record in result.history)


def test_each_row_is_used_once_in_each_epoch() -> None:
    net = network()
    used: list[float] = []

    def record(_module: object, arguments: tuple[Any, ...]) -> None:
        used.extend(arguments[0]["image"][:, 0].tolist())

    net.register_forward_pre_hook(record)
    inputs, y = rows(33)
    fit(net, inputs, y, phase=PhaseConfig(learning_rate=1e-3, batch_size=8), seed=0, epochs=1)
    assert sorted(used) == sorted(inputs["image"][:, 0].tolist())


def test_the_callback_receives_each_epoch() -> None:
    records: list[EpochRecord] = []
    inputs, y = rows(20)
    result = fit(network(), inputs, y, phase=PhaseConfig(learning_rate=1e-3), seed=0, epochs=3, on_epoch=records.append)
    assert tuple(records) == result.history
    assert result.seconds >= sum(record.seconds for record in records)


def test_weight_decay_shrinks_weights() -> None:
    inputs, y = rows(40)
    plain, decayed = network(), network()
    fit(plain, inputs, y, phase=PhaseConfig(learning_rate=1e-2), seed=0, epochs=20)
    fit(decayed, inputs, y, phase=PhaseConfig(learning_rate=1e-2, weight_decay=1.0), seed=0, epochs=20)
    first = [net.readout.body[0].weight.norm() for net in (plain, decayed)]
    assert first[1] < first[0]


def test_predictions_do_not_depend_on_the_batch() -> None:
    net = network()
    inputs, y = rows(50)
    fit(net, inputs, y, phase=PhaseConfig(learning_rate=1e-3), seed=0, epochs=2)
    whole = predict(net, inputs)
    assert whole.shape == (50,)
    assert whole.dtype == np.float64
    np.testing.assert_allclose(predict(net, inputs, batch_size=7), whole, atol=1e-6)
    np.testing.assert_allclose(predict(net, take(inputs, [4, 2])), whole[[4, 2]], atol=1e-6)


def test_take_and_to_inputs() -> None:
    inputs = to_inputs(image=np.arange(6.0).reshape(3, 2), text=("a", "b", "c"))
    assert inputs["image"].dtype == torch.float32  # type: ignore[union-attr]
    picked = take(inputs, np.array([2, 0]))
    assert picked["image"].tolist() == [[4.0, 5.0], [0.0, 1.0]]  # type: ignore[union-attr]
    assert picked["text"] == ["c", "a"]


def test_a_diverging_loss_is_an_error() -> None:
    inputs, y = rows(20)
    with pytest.raises(ModelError, match="lower learning_rate"):
        fit(network(), inputs, np.full(20, np.nan), phase=PhaseConfig(learning_rate=1e-3), seed=0, epochs=2)
    with pytest.raises(ModelError, match="loss is"):
        fit(network(), inputs, y, phase=PhaseConfig(learning_rate=1e30), seed=0, epochs=30)


def test_unusable_calls_are_refused() -> None:
    inputs, y = rows(4)
    phase = PhaseConfig(learning_rate=1e-3)
    with pytest.raises(ModelError, match="number of epochs"):
        fit(network(), inputs, y, phase=phase, seed=0)
    with pytest.raises(ModelError, match="at least 1"):
        fit(network(), inputs, y, phase=phase, seed=0, epochs=0)
    with pytest.raises(ModelError, match="at least 2"):
        fit(network(), take(inputs, [0]), y[:1], phase=phase, seed=0, epochs=1)
    with pytest.raises(ModelError, match=r"\(4,\)"):
        fit(network(), inputs, y[:3], phase=phase, seed=0, epochs=1)
    with pytest.raises(ModelError, match="unequal"):
        predict(network(), {**inputs, "text": ["a"]})
    with pytest.raises(ModelError, match="none given"):
        predict(network(), {})
    assert predict(network(), take(inputs, [])).shape == (0,)


def test_devices() -> None:
    assert choose_device("cpu").type == "cpu"
    with pytest.raises(ConfigurationError, match="not a device"):
        choose_device("abacus")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigurationError, match="not available"):
            choose_device("cuda")
