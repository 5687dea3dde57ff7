"""What a training run is told: kind of model, target, inputs, phases.

A config holds no seed: runs of one config with several seeds share its hash. ``to_dict``
gives only the fields that act on the config's kind, so that the image tower of a stack and
a model trained by ``ecdreg train image`` have the same hash when they are the same model.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args

from registry.errors import ConfigurationError
from train.features.views import ONE_VIEW, Views

__all__ = [
    "CLIP_TOKENS",
    "FIXED_MODALITIES",
    "KINDS",
    "SHARED_SPACE",
    "STACK_FEATURES",
    "TOKEN_LIMITS",
    "TOWERS",
    "Kind",
    "PhaseConfig",
    "StackFeatures",
    "TrainConfig",
]

Kind = Literal[
    "image", "text", "composition", "density", "stacked", "clip", "dual-encoder", "baseline-mean", "baseline-magpie"
]
StackFeatures = Literal["in-sample", "out-of-fold"]

TOWERS = ("image", "text", "composition", "density")
"""Modalities that have a tower, in the order in which a stack joins them."""

NETWORK = "network"
"""The dense readout, where a regressor is asked for."""

FIXED_MODALITIES = ("composition", "density")
"""Modalities whose features are made by a fixed rule, so that there is no backbone to fine-tune."""

SHARED_SPACE = ("clip", "dual-encoder")
"""Kinds that project images and texts into one space, and read a target from both projections side by side."""

KINDS: tuple[Kind, ...] = get_args(Kind)
STACK_FEATURES: tuple[StackFeatures, ...] = get_args(StackFeatures)

TOKEN_LIMITS: Mapping[str, int] = {"formula": 11, "keywords": 100, "all": 512}
"""Tokens kept of a text, special tokens included, by text level (Massa et al., arXiv 2401.09301)."""

CLIP_TOKENS = 77
"""The same for a CLIP, whatever the level; it takes no more."""

_IMAGE_SIZES: Mapping[str, int] = {"inception_v3": 299}
"""Pixels a side that an image backbone was made for, where 160 are too few for it; without the tag of its weights."""


@dataclass(frozen=True)
class PhaseConfig:
    """One phase of training: Adam on the mean squared error of the standardised target."""

    learning_rate: float
    """Step size of Adam."""
    batch_size: int = 32
    """Rows a step; a last batch of a single row joins the one before it."""
    max_epochs: int = 700
    """Epochs at most."""
    patience: int = 15
    """Epochs without a better loss on the stop rows before the phase ends."""
    weight_decay: float = 0.0
    """Decoupled weight decay (AdamW); 0 is plain Adam."""

    def __post_init__(self) -> None:
        _positive("learning_rate", self.learning_rate)
        for name in ("batch_size", "max_epochs", "patience"):
            _whole(name, getattr(self, name))
        if self.batch_size < 2:
            raise ConfigurationError(f"batch_size is {self.batch_size}; BatchNorm needs at least 2 rows")
        if not _is_number(self.weight_decay) or self.weight_decay < 0:
            raise ConfigurationError(f"weight_decay is {self.weight_decay!r}; give a number of 0 or more")

    def to_dict(self) -> dict[str, Any]:
        """All fields, as JSON takes them."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, where: str = "phase") -> PhaseConfig:
        """A phase from a mapping of its fields.

        Parameters
        ----------
        values
            Field names and values; ``learning_rate`` must be there.
        where
            Prefix of field names in messages, for instance ``"readout"``.

        Raises
        ------
        ConfigurationError
            For a field that is missing, unknown or unusable; the message names it.
        """
        if not isinstance(values, Mapping):
            raise ConfigurationError(f"{where} is {values!r}; give its fields, for instance learning_rate")
        _known(values, [f.name for f in dataclasses.fields(cls)], where=where)
        if "learning_rate" not in values:
            raise ConfigurationError(f"{where}.learning_rate is missing; give a number above 0")
        try:
            return cls(**values)
        except ConfigurationError as error:
            raise ConfigurationError(f"{where}.{error}") from None


@functools.cache
def _usual(phase: str) -> PhaseConfig:
    # Each is one object, told by identity from what somebody asked for: some kinds have other settings of their own.
    return {
        "align": PhaseConfig(1e-3, batch_size=128, max_epochs=300, patience=30),
        "readout": PhaseConfig(7e-4),
        "finetune": PhaseConfig(1e-5),
        "clip": PhaseConfig(1.5e-4, max_epochs=800, patience=50),
    }[phase]


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what is trained, but the seed."""

    kind: Kind
    """Kind of model."""
    target: str
    """Property that is predicted, for instance ``k_vrh``."""
    recipe: str = "metric"
    """Image recipe (image tower)."""
    text_level: str = "keywords"
    """Text level (text tower): formula, keywords or all."""
    image_backbone: str = "efficientnet_lite0"
    """Name in ``IMAGE_BACKBONES``, a folder, or a timm name."""
    text_backbone: str = "minilm"
    """Name in ``TEXT_BACKBONES``, a folder, or a transformers hub id."""
    image_size: int = cast(int, None)
    """Pixels a side that the image backbone sees; None: 299 for inception_v3, 160 for others."""
    image_widths: tuple[int, ...] = (1024, 512, 256)
    """Hidden widths of the image readout."""
    image_dropout: float = 0.2
    """Dropout of the image readout."""
    image_views: int = 1
    """Views of a crystal that the channels of its image hold, view after view (``metric-views`` has 4); with 1, all
    channels are one picture. A dense readout trains on one view of each row, drawn in every epoch, and a prediction is
    the mean over the views; a regressor reads the mean of their features."""
    image_average: bool = True
    """Whether predictions look at all views, and not at the first one alone."""
    image_augment: bool = False
    """Whether fine-tuning turns pictures by quarters and mirrors them, at random in every step."""
    text_widths: tuple[int, ...] = (512, 512, 256)
    """Hidden widths of the text readout."""
    text_dropout: float = 0.1
    """Dropout of the text readout."""
    composition_backbone: str = "magpie"
    """Name in ``COMPOSITION_FEATURIZERS``."""
    composition_widths: tuple[int, ...] = (512, 512, 256)
    """Hidden widths of the composition readout."""
    composition_dropout: float = 0.1
    """Dropout of the composition readout."""
    density_backbone: str = "density-statistics"
    """Name in ``DENSITY_FEATURIZERS``."""
    density_widths: tuple[int, ...] = (512, 512, 256)
    """Hidden widths of the density readout."""
    density_dropout: float = 0.1
    """Dropout of the density readout."""
    image_regressor: str = NETWORK
    """What the image tower puts on its features: ``network``, the dense readout, or a name in ``REGRESSORS``."""
    text_regressor: str = NETWORK
    """The same of the text tower."""
    composition_regressor: str = NETWORK
    """The same of the composition tower."""
    density_regressor: str = NETWORK
    """The same of the density tower."""
    stack_towers: tuple[str, ...] = ("image", "text")
    """Towers of a stack."""
    join: str = NETWORK
    """How a stack joins its towers: ``network``, a readout on their penultimate layers, as published; or a name in
    ``REGRESSORS``, fitted to the features of all towers where it weighs groups of features, else to the towers'
    predictions of rows that they had not seen."""
    stacked_widths: tuple[int, ...] = (256,)
    """Hidden widths of the readout of a stack."""
    stacked_dropout: float = 0.1
    """Dropout of the readout of a stack."""
    clip: str = "openai/clip-vit-base-patch32"
    """The CLIP: a folder in transformers' layout, or a hub id."""
    projection_dim: int = 512
    """Dimension of the space that a dual encoder shares between images and texts."""
    projection_dropout: float = 0.5
    """Dropout of the features that a dual encoder projects, while it is aligned."""
    align: PhaseConfig = field(default_factory=lambda: _usual("align"))
    """Phase before the readout of a dual encoder: its projections, by the contrastive loss."""
    auxiliary_targets: tuple[str, ...] = ()
    """Targets that dense readouts learn beside their own, from the same training rows."""
    readout: PhaseConfig = field(default_factory=lambda: _usual("readout"))
    """First phase: the readout on what is frozen; for a CLIP and a dual encoder Adam with 1.5e-4 for at most 800 epochs
    with a patience of 50, as published of CLIP."""
    finetune: PhaseConfig = field(default_factory=lambda: _usual("finetune"))
    """Second phase: everything trains; for a CLIP and a dual encoder as the readout."""
    finetune_enabled: bool = False
    """Whether the backbones are fine-tuned."""
    stop_fraction: float = 0.1
    """Share of the training rows that early stopping looks at; they are not trained on."""
    stack_features: StackFeatures = "in-sample"
    """Tower features that a stack's readout trains on: in-sample as published, or of towers that have not seen the
    row. In cross-validation on the bundled sample neither is better, and out-of-fold trains five times the towers."""
    n_estimators: int = 400
    """Trees of the composition baseline."""

    def __post_init__(self) -> None:
        # A list, as JSON or TOML gives it, is as good as a tuple.
        for name in (*(f"{tower}_widths" for tower in TOWERS), "stacked_widths"):
            widths = getattr(self, name)
            if not isinstance(widths, tuple | list) or not widths:
                raise ConfigurationError(f"{name} is {widths!r}; give a list of whole numbers, for instance [512, 256]")
            for width in widths:
                _whole(name, width)
            object.__setattr__(self, name, tuple(widths))
        _choice("kind", self.kind, KINDS)
        _choice("text_level", self.text_level, tuple(TOKEN_LIMITS))
        _choice("stack_features", self.stack_features, STACK_FEATURES)
        for name in ("target", "recipe", "clip", *(f"{tower}_backbone" for tower in TOWERS)):
            value = getattr(self, name)
            if not isinstance(value, str) or not value.strip():
                raise ConfigurationError(f"{name} is {value!r}; give a name")
        if vars(self)["image_size"] is None:
            architecture = self.image_backbone.rstrip("/").rsplit("/", 1)[-1].split(".")[0]
            object.__setattr__(self, "image_size", _IMAGE_SIZES.get(architecture, 160))
        for name in ("readout", "finetune"):
            if self.kind in SHARED_SPACE and getattr(self, name) is _usual(name):
                object.__setattr__(self, name, _usual("clip"))
        _whole("image_size", self.image_size)
        _whole("image_views", self.image_views)
        _whole("projection_dim", self.projection_dim)
        _whole("n_estimators", self.n_estimators)
        if self.image_size < 32:
            raise ConfigurationError(f"image_size is {self.image_size}; backbones need at least 32 pixels")
        for name in (
            *(f"{tower}_dropout" for tower in TOWERS),
            "stacked_dropout",
            "projection_dropout",
            "stop_fraction",
        ):
            value = getattr(self, name)
            if not _is_number(value) or not 0 <= value < 1:
                raise ConfigurationError(f"{name} is {value!r}; give a number from 0 to below 1")
        for name in ("finetune_enabled", "image_average", "image_augment"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigurationError(f"{name} is {getattr(self, name)!r}; give true or false")
        for name in ("align", "readout", "finetune"):
            if not isinstance(getattr(self, name), PhaseConfig):
                raise ConfigurationError(f"{name} is {getattr(self, name)!r}; give a PhaseConfig")
        self._check_stack()
        self._check_auxiliary_targets()

    def _check_auxiliary_targets(self) -> None:
        given = self.auxiliary_targets
        if not isinstance(given, tuple | list) or any(not isinstance(name, str) or not name for name in given):
            raise ConfigurationError(f"auxiliary_targets is {given!r}; give a list of properties")
        if self.target in given or len(set(given)) != len(given):
            raise ConfigurationError(f"auxiliary_targets is {list(given)}; give other properties than the target, once")
        object.__setattr__(self, "auxiliary_targets", tuple(sorted(given)))

    def _check_stack(self) -> None:
        for name in (*(f"{tower}_regressor" for tower in TOWERS), "join"):
            value = getattr(self, name)
            if value != NETWORK:
                from train.models.regressors.catalog import REGRESSORS

                if value not in REGRESSORS:
                    _choice(name, value, (NETWORK, *REGRESSORS))
        towers = self.stack_towers
        if not isinstance(towers, tuple | list) or not towers or len(set(towers)) != len(towers):
            raise ConfigurationError(f"stack_towers is {towers!r}; give a list of {', '.join(TOWERS)}, each once")
        for tower in towers:
            _choice("stack_towers", tower, TOWERS)
        # One order, whatever the user's: the same stack is the same configuration.
        object.__setattr__(self, "stack_towers", tuple(tower for tower in TOWERS if tower in towers))
        if self.kind == "stacked" and self.join == NETWORK:
            for tower in self.stack_towers:
                if self.regressor(tower) != NETWORK:
                    raise ConfigurationError(
                        f"{tower}_regressor is {self.regressor(tower)!r}, which has no penultimate layer to join;"
                        f" join by a regressor, or set {tower}_regressor to {NETWORK!r}"
                    )

    @property
    def towers(self) -> tuple[str, ...]:
        """Modalities whose towers the model has: none for a baseline."""
        if self.kind == "stacked":
            return self.stack_towers
        if self.kind in SHARED_SPACE:
            return ("image", "text")
        return (self.kind,) if self.kind in TOWERS else ()

    @property
    def embedded(self) -> tuple[str, ...]:
        """Modalities that the model's vectors are of: a shared space holds a crystal by its image."""
        return ("image",) if self.kind in SHARED_SPACE else self.towers

    @property
    def is_network(self) -> bool:
        """Whether the model is one network: a tower with a dense readout, or towers joined by one."""
        if self.kind == "stacked":
            return self.join == NETWORK
        return self.kind in SHARED_SPACE or (not self.is_baseline and self.regressor(self.kind) == NETWORK)

    @property
    def joins_features(self) -> bool:
        """Whether the model is a stack that one regressor joins at the features of its towers."""
        return self.kind == "stacked" and _joins_features(self.join)

    def regressor(self, tower: str) -> str:
        """What a tower puts on its features: ``network`` or a name in ``REGRESSORS``."""
        return str(getattr(self, f"{tower}_regressor"))

    def views(self, modality: str) -> Views:
        """How a tower looks at the views of a crystal; only an image has several."""
        if modality != "image" or self.kind in SHARED_SPACE:
            return ONE_VIEW
        return Views(self.image_views, average=self.image_average, augment=self.image_augment)

    def backbone(self, modality: str) -> str:
        """Name of the pre-trained network that reads images or texts."""
        _choice("modality", modality, ("image", "text"))
        return self.clip if self.kind == "clip" else str(getattr(self, f"{modality}_backbone"))

    def fixed_backbone(self, modality: str) -> str:
        """Name of the rule that makes the features of ``composition`` or ``density``.

        The composition baseline has its own, whatever the composition tower reads.
        """
        _choice("modality", modality, FIXED_MODALITIES)
        return "magpie" if self.is_baseline else str(getattr(self, f"{modality}_backbone"))

    def phase(self, name: str) -> PhaseConfig:
        """Settings of a phase: align, readout or finetune."""
        _choice("phase", name, ("align", "readout", "finetune"))
        return cast(PhaseConfig, getattr(self, name))

    @property
    def is_baseline(self) -> bool:
        """Whether nothing but the composition, or nothing at all, is looked at."""
        return self.kind.startswith("baseline-")

    @property
    def max_tokens(self) -> int:
        """Tokens kept of a text, special tokens included."""
        if self.kind == "clip":
            return CLIP_TOKENS
        return TOKEN_LIMITS[self.text_level]

    def tower_config(self, tower: str) -> TrainConfig:
        """Config of the model that is one tower alone.

        Parameters
        ----------
        tower
            One of :attr:`towers`.

        Raises
        ------
        ConfigurationError
            If this kind of model has no such tower.
        """
        _choice("tower", tower, self.towers)
        names = _acting_fields({**vars(self), "kind": tower})
        kept = {name: getattr(self, name) for name in names if name != "kind"}
        return TrainConfig(kind=cast(Kind, tower), **kept)

    def to_dict(self) -> dict[str, Any]:
        """The fields that act on this kind, as JSON takes them; :meth:`from_dict` reads them back."""
        values = {name: getattr(self, name) for name in _acting_fields(vars(self))}
        return {name: _plain(value) for name, value in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """A config from a mapping, as JSON or TOML gives it; what is left out has its default.

        Parameters
        ----------
        values
            Field names and values; ``kind`` and ``target`` must be there, the phases are
            mappings of their own.

        Raises
        ------
        ConfigurationError
            For a field that is missing, unknown, of no effect on the kind, or unusable;
            the message names it.
        """
        for name in ("kind", "target"):
            if name not in values:
                raise ConfigurationError(f"{name} is missing from the configuration")
        kind = values["kind"]
        _choice("kind", kind, KINDS)
        _known(values, [f.name for f in dataclasses.fields(cls)])
        defaults = {f.name: f.default for f in dataclasses.fields(cls) if f.default is not dataclasses.MISSING}
        acting = _acting_fields({**defaults, **values})
        for name in values:
            if name not in acting:
                raise ConfigurationError(f"{name} has no effect on kind {kind!r}; leave it out")
        parsed = dict(values)
        for name in ("align", "readout", "finetune"):
            if name in parsed and not isinstance(parsed[name], PhaseConfig):
                parsed[name] = PhaseConfig.from_dict(parsed[name], where=name)
        return cls(**parsed)


# Which fields act on which kind; the order is the one of to_dict.
_INPUTS = {
    "image": ("recipe", "image_backbone", "image_size"),
    "text": ("text_level", "text_backbone"),
    "composition": ("composition_backbone",),
    "density": ("density_backbone",),
}
_DENSE = ("auxiliary_targets",)
_DUAL = ("projection_dim", "projection_dropout", "align")
_PHASES = ("readout", "finetune", "finetune_enabled", "stop_fraction")


def _acting_fields(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the fields that act on a model with these values of fields.

    Values that cannot be used are taken as they are: what is wrong with them is said elsewhere.
    """
    kind = values["kind"]
    if kind == "clip":
        return ("kind", "target", "recipe", "text_level", "clip", *_PHASES)
    if kind == "dual-encoder":
        return ("kind", "target", *_INPUTS["image"], *_INPUTS["text"], *_DUAL, *_PHASES)
    if kind in TOWERS:
        own = _tower_fields(kind, values)
        return ("kind", "target", *own, *((*_DENSE, *_PHASES) if f"{kind}_widths" in own else ()))
    if kind == "stacked":
        given = values["stack_towers"]
        chosen = [tower for tower in TOWERS if isinstance(given, tuple | list) and tower in given]
        if _joins_features(values["join"]):
            # Regressors are of the towers that are trained beside such a stack, which itself reads their features.
            read = [name for tower in chosen for name in (*_read_fields(tower), f"{tower}_regressor")]
            return ("kind", "target", "stack_towers", *read, "join")
        towers = [name for tower in chosen for name in _tower_fields(tower, values)]
        joined = ("stacked_widths", "stacked_dropout", "stack_features") if values["join"] == NETWORK else ()
        trains = joined or any(name.endswith("_widths") for name in towers)
        return ("kind", "target", "stack_towers", *towers, "join", *joined, *((*_DENSE, *_PHASES) if trains else ()))
    return ("kind", "target", *(("n_estimators",) if kind == "baseline-magpie" else ()))


def _tower_fields(tower: str, values: Mapping[str, Any]) -> tuple[str, ...]:
    regressor = f"{tower}_regressor"
    dense = (f"{tower}_widths", f"{tower}_dropout") if values[regressor] == NETWORK else ()
    views = ("image_augment",) if tower == "image" and dense else ()
    return (*_read_fields(tower), *views, regressor, *dense)


def _read_fields(tower: str) -> tuple[str, ...]:
    return (*_INPUTS[tower], *(("image_views", "image_average") if tower == "image" else ()))


def _joins_features(join: object) -> bool:
    if join == NETWORK:
        return False
    from train.models.regressors.catalog import REGRESSORS

    return join in REGRESSORS and REGRESSORS[str(join)].joins_features


def _plain(value: Any) -> Any:
    if isinstance(value, PhaseConfig):
        return value.to_dict()
    return list(value) if isinstance(value, tuple) else value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _positive(name: str, value: object) -> None:
    if not _is_number(value) or cast(float, value) <= 0:
        raise ConfigurationError(f"{name} is {value!r}; give a number above 0")


def _whole(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigurationError(f"{name} is {value!r}; give a whole number of 1 or more")


def _choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigurationError(f"{name} is {value!r}; choose from {', '.join(choices) or 'nothing: it has none'}")


def _known(values: Mapping[str, Any], names: list[str], *, where: str | None = None) -> None:
    for name in values:
        if name not in names:
            near = difflib.get_close_matches(str(name), names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(names)}"
            raise ConfigurationError(f"{where + '.' if where else ''}{name} is no field of the configuration; {hint}")
