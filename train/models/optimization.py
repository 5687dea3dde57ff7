"""Training loop and inference of networks: Adam, mini-batches, early stopping.

The same network, rows, phase and seed give the same numbers on the CPU; the random state of the caller is restored.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from registry.errors import ModelError
from train.backbones.devices import choose_device
from train.config.phases import PhaseConfig
from train.models.networks import Inputs, Network, StackedNetwork

__all__ = ["EpochRecord", "FitResult", "encode", "fit", "predict", "take", "to_inputs"]


@dataclass(frozen=True)
class EpochRecord:
    """One point of a learning curve.

    Losses are those of the phase: the mean squared error of the standardised target, or the contrastive loss in the
    align phase.
    """

    epoch: int
    """Number of the epoch, from 1."""
    train_loss: float
    """Mean over the training rows, with dropout."""
    stop_loss: float | None
    """Loss on the stop rows, without dropout; None without stop rows."""
    seconds: float
    """Wall time of this epoch [s]."""


@dataclass(frozen=True)
class FitResult:
    """Learning curve and best epoch of a phase."""

    history: tuple[EpochRecord, ...]
    best_epoch: int
    """Epoch of the final weights, from 1: the best on the stop rows, otherwise the last."""
    seconds: float
    """Wall time of the phase [s]."""


def fit(
    network: Network,
    inputs: Inputs,
    targets: ArrayLike,
    *,
    phase: PhaseConfig,
    seed: int,
    stop: tuple[Inputs, ArrayLike] | None = None,
    epochs: int | None = None,
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> FitResult:
    """Train the parameters that the network's phase leaves trainable, in place, on the fastest device available.

    Parameters
    ----------
    network
        Network in the intended phase (:meth:`Network.set_phase`).
    inputs, targets
        Training rows: inputs by modality, and standardised targets, shape (N,); or (N, A), the target followed
        by auxiliary targets, NaN where a value is not known.
    phase
        Learning rate, batch size, epochs, patience.
    seed
        Seed of the order of the rows and of dropout.
    stop
        Rows of the training fold that are held back: training ends when their loss has not decreased for
        ``phase.patience`` epochs, and the best weights are restored.
    epochs
        Without ``stop``, the number of epochs. With it, the largest number of epochs, instead of ``phase.max_epochs``.
    on_epoch
        Called after each epoch.

    Returns
    -------
    FitResult
        Learning curve and best epoch; the network is on the CPU afterwards.

    Raises
    ------
    ModelError
        If there are fewer than 2 rows, inputs and targets differ in length, neither ``stop``
        nor ``epochs`` is given, or the loss is not finite.
    """
    if stop is None and epochs is None:
        raise ModelError("fit without stop rows needs a number of epochs")
    limit = phase.max_epochs if epochs is None else epochs
    if limit < 1:
        raise ModelError(f"fit for {limit} epochs; give at least 1")
    place = choose_device(None)
    rows, y = _rows(inputs, targets, place)
    if len(y) < 2:
        raise ModelError(f"fit on {len(y)} row; BatchNorm needs at least 2")
    held = None if stop is None else _rows(*stop, place)
    started = time.perf_counter()
    network.to(place)
    history: list[EpochRecord] = []
    best: tuple[float, int, dict[str, Tensor]] = (math.inf, 0, {})
    try:
        with _seeded(seed, place):
            optimiser = _optimiser(network, phase)
            order = torch.Generator().manual_seed(seed)
            for epoch in range(1, limit + 1):
                tick = time.perf_counter()
                train_loss = _epoch(network, rows, y, phase, optimiser=optimiser, order=order)
                stop_loss = None if held is None else _loss(network, *held)
                for loss in (train_loss, stop_loss):
                    if loss is not None and not math.isfinite(loss):
                        raise ModelError(
                            f"loss is {loss} in epoch {epoch}; lower learning_rate ({phase.learning_rate})"
                        )
                record = EpochRecord(epoch, train_loss, stop_loss, time.perf_counter() - tick)
                history.append(record)
                if stop_loss is not None and stop_loss < best[0]:
                    best = (stop_loss, epoch, _changing_state(network))
                if on_epoch is not None:
                    on_epoch(record)
                if held is not None and epoch - best[1] >= phase.patience:
                    break
        if held is not None:
            network.load_state_dict(best[2], strict=False)
    finally:
        network.eval()
        network.to("cpu")
    return FitResult(tuple(history), best[1] if held is not None else limit, time.perf_counter() - started)


def predict(
    network: Network, inputs: Inputs, *, batch_size: int = 256, device: str | None = None
) -> NDArray[np.float64]:
    """Standardised predictions, shape (N,), to be inverted by the target's scaler.

    Parameters
    ----------
    network
        Network; it is in evaluation mode afterwards.
    inputs
        Inputs by modality, N rows each.
    batch_size
        Rows of a batch; it changes results only by rounding.
    device
        Device in torch's naming; None for the fastest available.

    Raises
    ------
    ModelError
        If the modalities differ in length or a prediction is not finite.
    """
    values = _batched(network, network.forward, inputs, batch_size=batch_size, device=device).astype(np.float64)
    if not np.isfinite(values).all():
        raise ModelError(f"{np.count_nonzero(~np.isfinite(values))} of {len(values)} predictions are not finite")
    return values


def encode(
    network: Network, inputs: Inputs, *, joined: bool = False, batch_size: int = 256, device: str | None = None
) -> NDArray[np.float32]:
    """Penultimate features, shape (N, ``network.width``): the network's embeddings.

    Parameters
    ----------
    network, inputs, batch_size, device
        As for :func:`predict`.
    joined
        For a stack, whether to return its towers' penultimate features side by side, (N, 256 T), for
        ``inputs["joined"]``.

    Raises
    ------
    ModelError
        If the modalities differ in length, or ``joined`` is set for a single tower.
    """
    function: Callable[[Inputs], Tensor] = network.penultimate
    if joined:
        if not isinstance(network, StackedNetwork):
            raise ModelError("joined features of a single tower; only a stack has them")
        function = network.joined
    return _batched(network, function, inputs, batch_size=batch_size, device=device)


def to_inputs(**modalities: NDArray[np.floating] | Tensor | Sequence[str]) -> Inputs:
    """Inputs of a network: arrays become float32 tensors, texts a list.

    >>> inputs = to_inputs(image=np.zeros((2, 3)), text=["MgO", "NaCl"])
    >>> inputs["image"].shape, inputs["text"]
    (torch.Size([2, 3]), ['MgO', 'NaCl'])
    """
    return {
        name: torch.as_tensor(values, dtype=torch.float32) if isinstance(values, np.ndarray | Tensor) else list(values)
        for name, values in modalities.items()
    }


def take(inputs: Inputs, rows: ArrayLike) -> Inputs:
    """Select rows of every modality, in the given order.

    Parameters
    ----------
    inputs
        Inputs by modality, N rows each.
    rows
        Row numbers, shape (M,); not a boolean mask.
    """
    index = torch.as_tensor(np.asarray(rows, dtype=np.int64))
    return {name: _pick(values, index) for name, values in inputs.items()}


# ------------------------------------------------------------------------------- private


def _pick(values: Tensor | Sequence[str], index: Tensor) -> Tensor | list[str]:
    if isinstance(values, Tensor):
        return values.index_select(0, index.to(values.device))
    return [values[i] for i in index.tolist()]


def _length(inputs: Inputs) -> int:
    lengths = {name: len(values) for name, values in inputs.items()}
    if len(set(lengths.values())) != 1:
        raise ModelError(f"inputs of unequal length: {lengths or 'none given'}")
    return next(iter(lengths.values()))


def _rows(inputs: Inputs, targets: ArrayLike, device: torch.device) -> tuple[Inputs, Tensor]:
    y = torch.tensor(np.asarray(targets, dtype=np.float32), device=device)
    n = _length(inputs)
    if y.ndim not in (1, 2) or len(y) != n:
        raise ModelError(f"{n} rows of inputs and targets of shape {tuple(y.shape)}; give ({n},)")
    return _to(inputs, device), y


def _to(inputs: Inputs, device: torch.device) -> Inputs:
    return {k: v.to(device) if isinstance(v, Tensor) else v for k, v in inputs.items()}


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    # Dropout uses the global generators, so their state is saved and restored.
    cuda = [device.index or 0] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed)
        if cuda:
            torch.cuda.manual_seed(seed)
        elif device.type == "mps":
            torch.mps.manual_seed(seed)
        yield


def _optimiser(network: Network, phase: PhaseConfig) -> torch.optim.Optimizer:
    trainable = [p for p in network.parameters() if p.requires_grad]
    kind = torch.optim.AdamW if phase.weight_decay else torch.optim.Adam
    # The fused kernel halves the time of an epoch of the readout.
    return kind(trainable, lr=phase.learning_rate, weight_decay=phase.weight_decay, fused=True)


def _batches(n: int, size: int, order: torch.Generator) -> list[Tensor]:
    batches = list(torch.randperm(n, generator=order).split(size))
    if len(batches) > 1 and len(batches[-1]) == 1:  # BatchNorm has no variance over one row
        last = batches.pop()
        batches[-1] = torch.cat([batches[-1], last])
    return batches


def _epoch(
    network: Network,
    rows: Inputs,
    y: Tensor,
    phase: PhaseConfig,
    *,
    optimiser: torch.optim.Optimizer,
    order: torch.Generator,
) -> float:
    network.train()
    total = torch.zeros((), device=y.device)
    for index in _batches(len(y), phase.batch_size, order):
        batch = {name: _pick(values, index) for name, values in rows.items()}
        optimiser.zero_grad(set_to_none=True)
        loss = network.loss(batch, y.index_select(0, index.to(y.device)))
        loss.backward()
        optimiser.step()
        total += loss.detach() * len(index)
    return float(total) / len(y)


def _loss(network: Network, inputs: Inputs, y: Tensor, *, batch_size: int = 256) -> float:
    network.eval()
    total = 0.0
    with torch.inference_mode():
        for index in torch.arange(len(y)).split(batch_size):
            batch = {name: _pick(values, index) for name, values in inputs.items()}
            total += float(network.loss(batch, y.index_select(0, index.to(y.device)))) * len(index)
    return total / len(y)


def _changing_state(network: Network) -> dict[str, Tensor]:
    """Copies of the state that training changes: trainable weights, and statistics of layers in training mode."""
    network.train()
    changing = {name for name, p in network.named_parameters() if p.requires_grad}
    for prefix, module in network.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training:
            changing |= {f"{prefix}.{name}" for name, _ in module.named_buffers(recurse=False)}
    return {name: value.detach().clone() for name, value in network.state_dict().items() if name in changing}


def _batched(
    network: Network, function: Callable[[Inputs], Tensor], inputs: Inputs, *, batch_size: int, device: str | None
) -> NDArray[np.float32]:
    place = choose_device(device)
    n = _length(inputs)
    network.eval()
    network.to(place)
    try:
        with torch.inference_mode():
            parts = [
                function(_to({name: _pick(v, index) for name, v in inputs.items()}, place)).float().cpu().numpy()
                for index in torch.arange(n).split(batch_size)
            ]
    finally:
        network.to("cpu")
    return np.concatenate(parts)
