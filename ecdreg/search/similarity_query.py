"""Query of a similarity search: a crystal of the registry, a text, an image or files, and the encoders that read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from ecdreg.files import CrystalFiles, read_crystal
from registry.crystals import resolve
from registry.encoders import DEFAULT_ALIAS, resolve_encoder
from registry.errors import ConfigurationError, NotFoundError
from registry.formulas import chemical_system
from registry.models import Encoder, EncoderAlias
from registry.search.explanations import (
    Facts,
    common_words,
    explain_neighbour,
    explanation_sentence,
    facts_from_row,
    material_rows,
)
from registry.search.fusion import (
    FULL_TEXT,
    Hit,
    WordCheck,
    as_ranking,
    check_sentence,
    check_words,
    ranking_depth,
    search_descriptions,
)
from registry.search.text import Meaning, interpret, without_negated_words
from registry.search.vectors import Neighbour, similar_to_crystal, similar_to_vector

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from sqlalchemy.orm import Session

    from registry.crystals import CrystalData
    from registry.settings import Settings

__all__ = ["WORDS", "SimilarityQuery", "explanations"]

WORDS = "words"
"""Name, beside those of the encoders, of the search by the words of a text themselves."""


@dataclass(frozen=True)
class SimilarityQuery:
    """One of: ``id``, ``text``, ``image``, or ``structure`` and ``density`` files.

    Raises
    ------
    ConfigurationError
        If none or several of these are given, or an argument that belongs to another one is given alone.
    QueryError
        If the text cannot be searched for.
    """

    session: Session
    settings: Settings
    id: str | None = None
    text: str | None = None
    image: Path | None = None
    files: CrystalFiles = field(default_factory=CrystalFiles)
    encoder_names: tuple[str, ...] = ()
    """Encoders that the user named, :data:`WORDS` among them; none: those that suit the query."""
    metric: str = "cosine"
    """One of ``registry.search.vectors.METRICS``."""
    notes: list[str] = field(default_factory=list)
    """Remarks that choosing an encoder made."""
    warnings: list[str] = field(default_factory=list)
    """Parts of the files that could not be used."""

    def __post_init__(self) -> None:
        given = (self.id is not None) + (self.text is not None) + (self.image is not None) + bool(self.files)
        if given != 1:
            raise ConfigurationError(
                "give one of: the id of a crystal, a text, an image, or files (a structure and a density may go"
                " together)"
            )
        self.files.check()
        if self.text is None and WORDS in self.encoder_names:
            raise ConfigurationError(f"the encoder {WORDS!r} is the words of a text themselves; give a text")
        if self.text is not None:
            check_sentence(self.text)

    @cached_property
    def encoders(self) -> list[Encoder]:
        """The encoders of the search: the named ones, else the one that suits the query.

        Raises
        ------
        NotFoundError
            If a named one does not exist, or none suits.
        """
        names = [name for name in self.encoder_names if not self._is_words(name)]
        named = {encoder.name: encoder for encoder in (resolve_encoder(self.session, name) for name in names)}
        if self.encoder_names:
            return list(named.values())
        if self.id is not None:
            return [resolve_encoder(self.session)]
        if self.text is not None:
            return self._text_encoders()
        if self.image is not None:
            return [self._image_encoder()]
        return [self._file_encoder()]

    @cached_property
    def meanings(self) -> list[Meaning]:
        """Words of the text with a meaning that can be checked; none where words are not searched for."""
        return interpret(self.text) if self.text is not None and self.by_words else []

    @property
    def by_words(self) -> bool:
        """Whether the words themselves are searched for."""
        return self.text is not None and (
            not self.encoder_names or any(self._is_words(name) for name in self.encoder_names)
        )

    def nearest(
        self, encoder: Encoder, *, k: int, where: str | None, within: Sequence[int] | None = None
    ) -> list[Neighbour]:
        """Search with one encoder; the nearest crystal comes first.

        Parameters
        ----------
        encoder
            One of :attr:`encoders`.
        k
            Number of crystals.
        where, within
            A filter, and ids of the crystals to search among; both hold.

        Raises
        ------
        EcdregError
            If the encoder cannot read the query, or the filter cannot be used.
        """
        if self.id is not None:
            return similar_to_crystal(
                self.session, self.id, encoder=encoder.name, k=k, where=where, within=within, metric=self.metric
            )
        vector = self._vector(encoder)
        return similar_to_vector(
            self.session, vector, encoder=encoder.name, k=k, where=where, within=within, metric=self.metric
        )

    def checked(self, *, where: str | None) -> dict[tuple[str, str], WordCheck]:
        """Words that are true of each crystal, by (source, id); empty where no word can be checked.

        Raises
        ------
        QueryError
            If the filter cannot be used.
        """
        return check_words(self.session, self.meanings, where=where) if self.meanings else {}

    def rankings(self, *, k: int, where: str | None, within: Sequence[int] | None = None) -> dict[str, list[Hit]]:
        """All rankings that are fused to the best k, by the name of the encoder; ``full text`` for the words.

        Parameters
        ----------
        k
            Number of crystals in the answer; each ranking is read further.
        where, within
            A filter, and ids of the crystals to search among; both hold.

        Raises
        ------
        EcdregError
            As :meth:`nearest`.
        """
        found = {
            e.name: as_ranking(self.nearest(e, k=ranking_depth(k), where=where, within=within)) for e in self.encoders
        }
        if self.text is not None and self.by_words:
            found[FULL_TEXT] = search_descriptions(
                self.session, without_negated_words(self.text), limit=ranking_depth(k), where=where, within=within
            )
        return found

    def unread_density(self, encoder: Encoder) -> str | None:
        """One line if an encoder reads nothing of the density that was given; None where it reads it."""
        if self.files.density is None or encoder.modality not in ("composition", "text"):
            return None
        read = "the composition" if encoder.modality == "composition" else "a description of the structure"
        others = [e.name for e in _candidates(self.session) if e.modality not in ("composition", "text")]
        hint = f"encoder {others[0]} reads densities" if others else "`ecdreg train density` makes one that reads it"
        return f"{encoder.name} reads {read}, and nothing of the density in {self.files.density.name}; {hint}"

    def facts(self) -> Facts | None:
        """Known properties of the crystal of the query; None for a text or an image."""
        if self.id is not None:
            crystal = resolve(self.session, self.id)
            key = (crystal.source, crystal.source_id)
            return facts_from_row(material_rows(self.session, [key])[key])
        if not self.files:
            return None
        read = self._crystal
        return Facts(
            name=read.source_id,
            formula=read.formula,
            elements=tuple(chemical_system(read.formula)[0]),
            prototype=read.prototype,
            space_group_symbol=read.space_group_symbol,
            description=next((d.text for d in read.descriptions if d.text_level == "all"), None),
        )

    # ------------------------------------------------------------------------------ vectors

    def _vector(self, encoder: Encoder) -> NDArray[np.float32]:
        from train.prediction.encoding import encode_crystal, encode_image, encode_text

        if self.text is not None:
            return encode_text(self.session, self.settings, encoder, self.text)
        if self.image is not None:
            return encode_image(self.session, self.settings, encoder, self._pixels, has_unit=self._has_unit)
        return encode_crystal(self.session, self.settings, encoder, self._crystal)

    @property
    def _has_unit(self) -> bool:
        return self.image is not None and self.image.suffix.lower() != ".png"

    @cached_property
    def _pixels(self) -> NDArray[np.float32]:
        from ingest.readers.images import read_image

        assert self.image is not None
        return read_image(self.image)

    @cached_property
    def _crystal(self) -> CrystalData:
        from train.prediction.encoding import encoder_inputs

        inputs = [encoder_inputs(self.session, encoder) for encoder in self.encoders]
        crystal, problems = read_crystal(
            self.files,
            recipes=tuple(sorted({one.recipe for one in inputs if one.recipe is not None})),
            texts=any(one.text_level is not None for one in inputs),
        )
        self.warnings.extend(problems)
        return crystal

    # ----------------------------------------------------------------------------- encoders

    def _is_words(self, name: str) -> bool:
        return name == WORDS and self.text is not None

    def _text_encoders(self) -> list[Encoder]:
        """The encoders of a text: one that reads texts, and one with a space that images and texts share, if any.

        Of texts: the default if it is one, else MiniLM on keywords, else a frozen one before a model's.
        """
        from train.prediction.encoding import reads_sentences

        candidates = _candidates(self.session)
        texts = [e for e in candidates if e.modality == "text"]
        # MiniLM is made for sentences, and bond lengths are what the keywords level is about.
        by_default = [e for e in texts[:1] if _is_default(self.session, e)]
        keywords = [e for e in texts if e.name == "minilm:keywords"]
        shared = [e for e in candidates if e.modality != "text" and reads_sentences(self.session, e)]
        chosen = [*(by_default or keywords or texts)[:1], *shared[-1:]]  # the newest model
        if not chosen:
            existing = ", ".join(e.name for e in candidates) or "none"
            self.notes.append(
                f"no encoder reads texts (encoders: {existing}): words alone; `ecdreg train text` makes one"
            )
        return chosen

    def _image_encoder(self) -> Encoder:
        """The encoder of an image: the default if it takes such ones, else a frozen one that does.

        Raises
        ------
        NotFoundError
            If none does.
        """
        from train.prediction.encoding import takes_image

        self._pixels  # noqa: B018  an error in the file comes first
        images = [e for e in _candidates(self.session) if e.modality == "image"]
        for encoder in images:
            if takes_image(self.session, encoder, self._pixels, has_unit=self._has_unit):
                return encoder
        existing = ", ".join(e.name for e in images) or "none"
        what = "physical values" if self._has_unit else "the grey values of a PNG (no unit)"
        raise NotFoundError(
            f"no encoder reads {what} of shape {self._pixels.shape} (image encoders: {existing}); give an .npy of the"
            " shape and unit of its slices, or name an encoder to see what it needs"
        )

    def _file_encoder(self) -> Encoder:
        """The encoder of files: the default if the files contain its inputs, else a frozen one.

        Of a structure alone that is the composition on Pettifor's scale, which finds better neighbours than a text,
        or else a text.

        Raises
        ------
        NotFoundError
            If none reads them.
        """
        candidates = _candidates(self.session)
        # Every density file contains its structure, so that texts can always be made.
        readable = candidates
        if self.files.density is None:
            readable = [e for e in candidates if e.modality in ("text", "composition")]
            readable.sort(key=lambda e: (not _is_default(self.session, e), e.name != "pettifor", e.modality != "text"))
        if not readable:
            existing = ", ".join(e.name for e in candidates) or "none"
            given = "files" if self.files.density is not None else "a structure alone"
            raise NotFoundError(f"no encoder reads {given} (encoders: {existing}); `ecdreg train` makes some")
        return readable[0]


def explanations(query: SimilarityQuery, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Common properties of the query and each row of an answer; see :mod:`registry.search.explanations`.

    Parameters
    ----------
    query
        The query of the search.
    rows
        Answers with ``source`` and ``source_id``, and with ``met``, the words of the text that are true of it.
    """
    session = query.session
    keys = [(row["source"], row["source_id"]) for row in rows]
    facts = {key: facts_from_row(row) for key, row in material_rows(session, keys).items()}
    own = query.facts()
    text = query.text if own is None else own.description
    described = {key: one.description for key, one in facts.items() if one.description}
    words = common_words(session, text, described) if text and described else {}
    found = []
    for key, row in zip(keys, rows, strict=True):
        one = explain_neighbour(session, own, facts[key], words=words.get(key, ()), met=row["met"])
        found.append({**one, "sentence": explanation_sentence(one, facts[key])})
    return found


def _candidates(session: Session) -> list[Encoder]:
    """All encoders: the default first, then frozen ones, images before texts; towers of models last."""
    order = func.array_position(["image", "text", "stacked"], Encoder.modality)
    return list(
        session.scalars(
            select(Encoder)
            .outerjoin(EncoderAlias, (EncoderAlias.encoder_id == Encoder.id) & (EncoderAlias.alias == DEFAULT_ALIAS))
            .order_by(EncoderAlias.alias.is_(None), Encoder.model_version_id.is_not(None), order, Encoder.id)
        )
    )


def _is_default(session: Session, encoder: Encoder) -> bool:
    alias = session.get(EncoderAlias, DEFAULT_ALIAS)
    return alias is not None and alias.encoder_id == encoder.id
