"""``ecdreg similar``: what is like this crystal, sentence, picture or file; ``ecdreg encoders``: by which measure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import output
from cli.options.common import (
    DensityOption,
    JsonOption,
    KOption,
    LevelOfTheoryOption,
    ReferenceOption,
    StructureOption,
    WhereOption,
    command_group,
)
from cli.options.sessions import open_session

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.orm import Session

    from ecdreg.similarity import Question
    from registry.search.fusion import Checked, Hit

__all__ = ["group", "similar"]

group = command_group("List what yields vectors, and choose what searches use.")


def similar(
    ident: Annotated[
        str | None, typer.Argument(metavar="ID", help="A crystal's id, or source:id.", show_default=False)
    ] = None,
    text: Annotated[
        str | None, typer.Option("--text", metavar="SENTENCE", help="What the crystals should be like, in words.")
    ] = None,
    image: Annotated[
        Path | None,
        typer.Option("--image", metavar="FILE", help="A slice as a picture: .npy (C, H, W) in e/Å^3, or a grey .png."),
    ] = None,
    structure: StructureOption = None,
    density: DensityOption = None,
    reference: ReferenceOption = None,
    level_of_theory: LevelOfTheoryOption = None,
    encoder: Annotated[
        list[str] | None,
        typer.Option(
            "--encoder",
            metavar="NAME",
            help="Encoder or alias of one; by default the alias `default`. Several are fused by their ranks; `words`"
            " are those of the --text themselves.",
        ),
    ] = None,
    k: KOption = 10,
    where: WhereOption = None,
    metric: Annotated[
        str, typer.Option("--metric", metavar="NAME", help="cosine, l2, or inner_product (its negative is shown).")
    ] = "cosine",
    explain: Annotated[
        bool, typer.Option("--explain", help="Say what can be seen that makes each one near, and its ranks.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Find the crystals most like one of the registry, a sentence, a picture, or files.

    Nearest first, by the cosine distance of their vectors: 0 is the same direction, 2 the opposite.
    A file goes through the same slices and texts as an ingest. `ecdreg encoders list` shows the encoders:
    `ecdreg train stacked` makes fingerprint, which is used where none is named, efficientnet_lite0:metric and
    minilm:keywords; `ecdreg encoders add pettifor` makes pettifor.

    Several encoders are fused: a crystal scores the sum of 1 / (60 + rank) over them. Of a sentence, the words
    whose meaning can be checked come first (hard, metallic, oxide, tungsten, TiN, "not magnetic"): who meets more of
    them is before who meets fewer. Then an encoder that reads texts and the words of the descriptions, fused.

    \b
    Examples:
      ecdreg similar mp-1022 -k 5
      ecdreg similar mp-1022 --encoder efficientnet_lite0:metric --encoder minilm:keywords --explain
      ecdreg similar --text "hard, metallic, tungsten"
      ecdreg similar --text "rock salt oxide" --where "k_vrh > 100"
      ecdreg similar mp-1022 --where "elements @> ARRAY['Ti'] AND space_group_number = 225"
      ecdreg similar --image slice.npy
      ecdreg similar --density CHGCAR --reference CHGCAR.reference --encoder efficientnet_lite0:metric
      ecdreg similar --density CHGCAR --reference CHGCAR.reference --level-of-theory GGA
    """
    _check_form(ident, text, image, structure, density, reference=reference, level_of_theory=level_of_theory)
    from ecdreg.similarity import WORDS, Question

    if text is None and WORDS in (encoder or ()):
        raise typer.BadParameter(f"--encoder {WORDS} are those of a --text; give one")
    if text is not None:
        from registry.search.fusion import check_sentence

        check_sentence(text)
    with open_session() as session:
        question = Question(
            session,
            ident=ident,
            sentence=text,
            image=image,
            structure=structure,
            density=density,
            reference=reference,
            level_of_theory=level_of_theory,
            names=tuple(encoder or ()),
            metric=metric,
        )
        rows = _answer(question, k=k, where=where, explain=explain)
    if json:
        output.json(rows)
    elif not rows:
        _tell_nothing(question, where)
    else:
        columns = (
            _COLUMNS
            | ({"words": "words met"} if "checked" in rows[0] else {})
            | ({"score": "score"} if "score" in rows[0] else {"distance": "distance"})
            | _facts()
        )
        shown = [{**row, "id": f"{row['source']}:{row['source_id']}", "words": _words(row)} for row in rows]
        output.table(shown, columns, formats={"distance": ".4f", "score": ".4f"})
        for row in rows if explain else ():
            output.line(f"{row['rank']}. {row['formula']}: {row['why']['sentence']}{_not_met(row)}{_ranks(row)}")


@group.command("list")
def list_encoders(json: JsonOption = False) -> None:
    """List the encoders: frozen backbones and trained towers, with the number of their vectors.

    \b
    Examples:
      ecdreg encoders list
      ecdreg encoders list --json
    """

    with open_session() as session:
        rows = [{n: v for n, v in row.items() if n != "id"} for row in _encoders(session)]
    if json:
        output.json(rows)
    elif not rows:
        output.note("no encoders yet; `ecdreg train stacked` makes some")
    else:
        output.table(
            [{**row, "aliases": ", ".join(row["aliases"]), "frozen": "yes" if row["frozen"] else "no"} for row in rows]
        )


@group.command("default")
def default(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name or alias of an encoder.", show_default=False)],
    json: JsonOption = False,
) -> None:
    """Choose the encoder that searches use when none is named.

    \b
    Examples:
      ecdreg encoders default efficientnet_lite0:metric
    """
    from registry.encoders import DEFAULT_ALIAS, resolve_encoder, set_encoder_alias

    with open_session() as session:
        chosen = resolve_encoder(session, name)
        set_encoder_alias(session, DEFAULT_ALIAS, chosen)
        row = {"alias": DEFAULT_ALIAS, "encoder": chosen.name, "modality": chosen.modality, "dim": chosen.dim}
    output.rows([row], json=json)


@group.command("add")
def add(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="fingerprint, pettifor, magpie, elements or density-statistics.", show_default=False
        ),
    ],
    json: JsonOption = False,
) -> None:
    """Give every crystal a vector by a fixed rule, to search by; no label has a part in it.

    `fingerprint` puts statistics of the charge density and of the composition side by side, and the composition on
    Pettifor's chemical scale, where elements that replace each other are neighbours; `ecdreg train stacked` and
    `density` make it too, and it is what searches use by themselves. `pettifor` is that scale alone, for crystals
    without a density. `ecdreg evaluate search` shows what they are worth. Crystals that have a vector keep it; new
    ones get theirs.

    \b
    Examples:
      ecdreg encoders add fingerprint
      ecdreg encoders add pettifor --json
    """
    from sqlalchemy.orm import Session

    from cli.options.common import open_engine
    from cli.options.common import settings as environment
    from registry.database import session_scope
    from registry.files.grids import GridStore
    from train.experiments.publish import update_default_encoder
    from train.features.cache import add_encoder

    engine, known = open_engine(), environment()
    with output.progress() as progress:
        grids = GridStore(known.grids_url)
        encoder_id = add_encoder(engine, name, models=known.models, progress=progress, grids=grids)
    with session_scope(engine) as session:
        update_default_encoder(session)
    with Session(engine) as session:
        row = next(r for r in _encoders(session) if r.pop("id") == encoder_id)
    output.rows([row], json=json, columns=["encoder", "modality", "dim", "vectors"])


_COLUMNS = {"rank": "rank", "id": "id", "formula": "formula"}


def _facts() -> dict[str, str]:
    """Columns of an answer beside its rank, and their headings."""
    from registry.properties import PROPERTIES, target_names

    targets = {name: f"{PROPERTIES[name].label} [{PROPERTIES[name].unit}]" for name in target_names()}
    return {"space_group_symbol": "space group"} | targets


def _check_form(
    ident: str | None,
    text: str | None,
    image: Path | None,
    structure: Path | None,
    density: Path | None,
    *,
    reference: Path | None,
    level_of_theory: str | None,
) -> None:
    files = structure is not None or density is not None
    if (ident is not None) + (text is not None) + (image is not None) + files != 1:
        raise typer.BadParameter(
            "give one of: an ID, --text, --image, or files (--structure and --density may go together)"
        )
    for option, value in (("--reference", reference), ("--level-of-theory", level_of_theory)):
        if value is not None and density is None:
            raise typer.BadParameter(f"{option} {value} belongs to a --density; give both")


# ----------------------------------------------------------------------------- answers


def _answer(question: Question, *, k: int, where: str | None, explain: bool) -> list[dict[str, Any]]:
    """The rows of the answer: of one encoder with its distances, or of several rankings with their scores."""
    encoders = question.encoders
    if len(encoders) == 1 and not question.by_words:
        neighbours = question.nearest(encoders[0], k=k, where=where)
        rows = [{"rank": rank, **neighbour.as_row()} for rank, neighbour in enumerate(neighbours, start=1)]
        for row in rows:
            row["ranks"] = {encoders[0].name: {"rank": row["rank"], "distance": row["distance"]}}
    else:
        from registry.search.fusion import FULL_TEXT, contenders

        checked = question.checked(where=where)
        # What the words decide, no ranking can change: it is asked for the order of those that are left.
        within = contenders(checked, k=k) if question.meanings else None
        rankings = question.rankings(k=k, where=where, within=within)
        rows = _fused(question.session, rankings, k=k, checked=checked)
        if question.by_words and not question.meanings and not rankings[FULL_TEXT]:
            whose = " of those that pass the filter" if where else ""
            order = ": the order is the text encoder's alone" if rows else ""
            output.note(f"no word of {question.sentence!r} is checkable or found in descriptions{whose}{order}")
    from registry.search.indexes import index_advice

    for encoder in encoders if question.ident is None else ():
        output.note(f"encoder: {encoder.name}")
        if overlooked := question.overlooked(encoder):
            output.note(overlooked)
    for meaning in question.meanings:
        output.note(f"word: {meaning.told}")
    for encoder in encoders:
        if advice := index_advice(question.session, encoder, question.metric):
            output.note(advice)
    if explain:
        from ecdreg.similarity import explanations

        for row, why in zip(rows, explanations(question, rows), strict=True):
            row["why"] = why
    elif len(encoders) == 1 and not question.by_words:
        for row in rows:
            del row["ranks"]
    return rows


def _fused(
    session: Session, rankings: Mapping[str, list[Hit]], *, k: int, checked: Mapping[tuple[str, str], Checked]
) -> list[dict[str, Any]]:
    from registry.search.explanations import facts_of
    from registry.search.fusion import fuse

    best = fuse(rankings, k=k, checked=checked)
    facts = facts_of(session, [(one.source, one.source_id) for one in best])
    names = ("crystal_id", "source", "source_id", "formula", *_facts())
    return [
        {
            "rank": rank,
            **{name: facts[one.source, one.source_id][name] for name in names},
            **({} if one.checked is None else {"checked": _checked(one.checked)}),
            "score": one.score,
            "ranks": {name: {"rank": hit.rank, "distance": hit.distance} for name, hit in one.hits.items()},
        }
        for rank, one in enumerate(best, start=1)
    ]


def _checked(one: Checked) -> dict[str, list[str]]:
    return {"met": list(one.met), "unmet": list(one.unmet), "unknown": list(one.unknown)}


def _words(row: Mapping[str, Any]) -> str:
    """How many of the words are met, as ``2 of 3``, and of how many that is not known."""
    if "checked" not in row:
        return ""
    met, unmet, unknown = (len(row["checked"][kind]) for kind in ("met", "unmet", "unknown"))
    return f"{met} of {met + unmet + unknown}" + (f", {unknown} unknown" if unknown else "")


def _not_met(row: Mapping[str, Any]) -> str:
    checked = row.get("checked", {})
    told = (("not met", checked.get("unmet")), ("not known", checked.get("unknown")))
    return "".join(f"; {what}: {', '.join(words)}" for what, words in told if words)


def _ranks(row: Mapping[str, Any]) -> str:
    """The place under each ranking."""
    places = [f"{one['rank']} by {name}" for name, one in row["ranks"].items()]
    return f"; rank {', '.join(places)}" if places else ""


def _tell_nothing(question: Question, where: str | None) -> None:
    """Why there is no answer."""
    if not question.by_words:
        output.note("no crystal passes the filter" if where else "no crystal has a vector of this encoder")
    elif question.meanings:
        which = "that passes the filter " if where else ""
        output.note(f"no crystal {which}meets a word of {question.sentence!r} or has one in its description")
    else:  # that no word is known has been said
        output.note("write others: what a crystal is (hard, metallic, oxide), or what its description says")


# ---------------------------------------------------------------------------- encoders


def _encoders(session: Session) -> list[dict[str, Any]]:
    from sqlalchemy import text

    rows = session.execute(
        text(
            """
            SELECT e.id, e.name AS encoder, e.modality, e.dim, r.name AS recipe, e.text_level,
                   (SELECT count(*) FROM embeddings v WHERE v.encoder_id = e.id) AS vectors,
                   e.model_version_id IS NULL AS frozen,
                   ARRAY(SELECT a.alias FROM encoder_aliases a WHERE a.encoder_id = e.id ORDER BY a.alias) AS aliases
            FROM encoders e LEFT JOIN image_recipes r ON r.id = e.recipe_id
            ORDER BY e.id
            """
        )
    )
    return [dict(row) for row in rows.mappings()]
