"""What a similarity search is asked with: a crystal of the registry, a sentence, a picture or files; and by what."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli import output
from cli.options.common import settings as environment
from ecdreg.files import read_crystal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from sqlalchemy.orm import Session

    from registry.crystals import CrystalData
    from registry.models import Encoder
    from registry.search.explanations import Facts
    from registry.search.fusion import Checked, Hit
    from registry.search.text import Meaning
    from registry.search.vectors import Neighbour

__all__ = ["WORDS", "Question", "explanations"]

WORDS = "words"
"""What ``--encoder`` calls the words of a sentence themselves, beside the encoders."""


@dataclass(frozen=True)
class Question:
    """One of: ``ident``, ``sentence``, ``image``, or ``structure`` and ``density`` files."""

    session: Session
    ident: str | None = None
    sentence: str | None = None
    image: Path | None = None
    structure: Path | None = None
    density: Path | None = None
    reference: Path | None = None
    level_of_theory: str | None = None
    names: tuple[str, ...] = ()
    """Encoders that were named."""
    metric: str = "cosine"
    """One of ``registry.search.vectors.METRICS``."""

    @cached_property
    def encoders(self) -> list[Encoder]:
        """Those that answer: the named ones, else the one that suits the question.

        Raises
        ------
        NotFoundError
            If a named one is not there, or none suits.
        """
        from registry.encoders import resolve_encoder

        named = {e.name: e for e in (resolve_encoder(self.session, n) for n in self.names if not self._is_words(n))}
        if self.names:
            return list(named.values())
        if self.ident is not None:
            return [resolve_encoder(self.session)]
        if self.sentence is not None:
            return self._readers()
        if self.image is not None:
            return [self._viewer()]
        return [self._file_encoder()]

    @cached_property
    def meanings(self) -> list[Meaning]:
        """Words of the sentence whose meaning can be checked; none where words are not asked for."""
        from registry.search.text import interpret

        return interpret(self.sentence) if self.sentence is not None and self.by_words else []

    @property
    def by_words(self) -> bool:
        """Whether the words themselves are searched for."""
        return self.sentence is not None and (not self.names or any(self._is_words(n) for n in self.names))

    def nearest(
        self, encoder: Encoder, *, k: int, where: str | None, within: Sequence[int] | None = None
    ) -> list[Neighbour]:
        """The answer of one encoder, nearest first; ``within`` are ids of the crystals to search among.

        Raises
        ------
        EcdregError
            If the question cannot be asked in this encoder's space, or the filter cannot be used.
        """
        from registry.search.vectors import similar_to_crystal, similar_to_vector

        if self.ident is not None:
            return similar_to_crystal(
                self.session, self.ident, encoder=encoder.name, k=k, where=where, within=within, metric=self.metric
            )
        vector = self._vector(encoder)
        return similar_to_vector(
            self.session, vector, encoder=encoder.name, k=k, where=where, within=within, metric=self.metric
        )

    def checked(self, *, where: str | None) -> dict[tuple[str, str], Checked]:
        """Which words are true of each crystal; empty where no word can be checked.

        Raises
        ------
        QueryError
            If the filter cannot be used.
        """
        from registry.search.fusion import check_words

        return check_words(self.session, self.meanings, where=where) if self.meanings else {}

    def rankings(self, *, k: int, where: str | None, within: Sequence[int] | None = None) -> dict[str, list[Hit]]:
        """All rankings that the best k are joined of, by name: an encoder's, the full text's.

        Parameters
        ----------
        k
            How many are wanted; each ranking is looked into further.
        where, within
            A filter, and ids of the crystals to search among; both hold.

        Raises
        ------
        EcdregError
            As :meth:`nearest`.
        """
        from registry.search.fusion import FULL_TEXT, depth, ranked, search_descriptions
        from registry.search.text import affirmed

        found = {e.name: ranked(self.nearest(e, k=depth(k), where=where, within=within)) for e in self.encoders}
        if self.by_words:
            assert self.sentence is not None
            found[FULL_TEXT] = search_descriptions(
                self.session, affirmed(self.sentence), limit=depth(k), where=where, within=within
            )
        return found

    def overlooked(self, encoder: Encoder) -> str | None:
        """What an encoder does not read of a density that was given, one line; None where it reads it."""
        if self.density is None or encoder.modality not in ("composition", "text"):
            return None
        read = "the composition" if encoder.modality == "composition" else "a description of the structure"
        others = [e.name for e in _candidates(self.session) if e.modality not in ("composition", "text")]
        hint = f"--encoder {others[0]} reads densities" if others else "`ecdreg train density` makes one that reads it"
        return f"{encoder.name} reads {read}, and nothing of the density in {self.density.name}; {hint}"

    def facts(self) -> Facts | None:
        """What is known of the crystal that was asked with; None for a sentence or a picture."""
        from registry.crystals import resolve
        from registry.formulas import chemical_system
        from registry.search.explanations import Facts, facts_of, from_row

        if self.ident is not None:
            crystal = resolve(self.session, self.ident)
            key = (crystal.source, crystal.source_id)
            return from_row(facts_of(self.session, [key])[key])
        if self.structure is None and self.density is None:
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

        if self.sentence is not None:
            return encode_text(self.session, environment(), encoder, self.sentence)
        if self.image is not None:
            return encode_image(self.session, environment(), encoder, self._pixels, has_unit=self._has_unit)
        return encode_crystal(self.session, environment(), encoder, self._crystal)

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

        reads = [encoder_inputs(self.session, e) for e in self.encoders]
        return read_crystal(
            self.structure,
            self.density,
            reference=self.reference,
            level_of_theory=self.level_of_theory,
            recipes=tuple(sorted({r.recipe for r in reads if r.recipe is not None})),
            texts=any(r.text_level is not None for r in reads),
        )

    # ----------------------------------------------------------------------------- encoders

    def _is_words(self, name: str) -> bool:
        return name == WORDS and self.sentence is not None

    def _readers(self) -> list[Encoder]:
        """The encoders of a sentence: one of texts, and one whose space pictures and texts share, where they are.

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
            there = ", ".join(e.name for e in candidates) or "none"
            output.note(f"no encoder reads texts (encoders: {there}): words alone; `ecdreg train text` makes one")
        return chosen

    def _viewer(self) -> Encoder:
        """The encoder of a picture: the default if it takes such ones, else a frozen one that does.

        Raises
        ------
        NotFoundError
            If none does.
        """
        from registry.errors import NotFoundError
        from train.prediction.encoding import takes_image

        self._pixels  # noqa: B018  what is wrong with the file comes first
        images = [e for e in _candidates(self.session) if e.modality == "image"]
        for encoder in images:
            if takes_image(self.session, encoder, self._pixels, has_unit=self._has_unit):
                return encoder
        there = ", ".join(e.name for e in images) or "none"
        what = "physical values" if self._has_unit else "a PNG, whose grey has no unit"
        raise NotFoundError(
            f"no encoder reads {what} of shape {self._pixels.shape} (image encoders: {there}); give an .npy of the"
            " shape and unit of its slices, or name an encoder with --encoder to hear what it wants"
        )

    def _file_encoder(self) -> Encoder:
        """The encoder of files: the default if the files hold what it reads, else a frozen one.

        Of a structure alone that is the composition on Pettifor's scale, whose neighbours are better than those of a
        text, or else a text.

        Raises
        ------
        NotFoundError
            If none reads them.
        """
        from registry.errors import NotFoundError

        candidates = _candidates(self.session)
        # Every density file brings its structure along, so that texts can always be made.
        readable = candidates
        if self.density is None:
            readable = [e for e in candidates if e.modality in ("text", "composition")]
            readable.sort(key=lambda e: (not _is_default(self.session, e), e.name != "pettifor", e.modality != "text"))
        if not readable:
            there = ", ".join(e.name for e in candidates) or "none"
            wanted = "files" if self.density is not None else "a structure alone"
            raise NotFoundError(f"no encoder reads {wanted} (encoders: {there}); `ecdreg train` makes some")
        return readable[0]


def _candidates(session: Session) -> list[Encoder]:
    """All encoders: the default first, then frozen ones, images before texts; towers of models last."""
    from sqlalchemy import func, select

    from registry.encoders import DEFAULT_ALIAS
    from registry.models import Encoder, EncoderAlias

    order = func.array_position(["image", "text", "stacked"], Encoder.modality)
    return list(
        session.scalars(
            select(Encoder)
            .outerjoin(EncoderAlias, (EncoderAlias.encoder_id == Encoder.id) & (EncoderAlias.alias == DEFAULT_ALIAS))
            .order_by(EncoderAlias.alias.is_(None), Encoder.model_version_id.is_not(None), order, Encoder.id)
        )
    )


def _is_default(session: Session, encoder: Encoder) -> bool:
    from registry.encoders import DEFAULT_ALIAS
    from registry.models import EncoderAlias

    alias = session.get(EncoderAlias, DEFAULT_ALIAS)
    return alias is not None and alias.encoder_id == encoder.id


def explanations(question: Question, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What made each row of an answer near; see :mod:`registry.search.explanations`.

    Parameters
    ----------
    question
        What was asked.
    rows
        Answers with ``source`` and ``source_id``, and with ``checked`` where words were.
    """
    from registry.search.explanations import common_words, explain, facts_of, from_row, sentence

    session = question.session
    keys = [(row["source"], row["source_id"]) for row in rows]
    facts = {key: from_row(row) for key, row in facts_of(session, keys).items()}
    asked = question.facts()
    told_by = question.sentence if asked is None else asked.description
    described = {key: one.description for key, one in facts.items() if one.description}
    words = common_words(session, told_by, described) if told_by and described else {}
    told = []
    for key, row in zip(keys, rows, strict=True):
        met = row.get("checked", {}).get("met", ())
        one = explain(session, asked, facts[key], words=words.get(key, ()), met=met)
        told.append({**one, "sentence": sentence(one, facts[key])})
    return told
