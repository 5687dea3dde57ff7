"""``ecdreg similar``: what is like this crystal, sentence or file; ``ecdreg encoders``: by which measure."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import output
from cli.files import read_crystal
from cli.options import (
    DensityOption,
    EncoderOption,
    JsonOption,
    KOption,
    LevelOfTheoryOption,
    ReferenceOption,
    StructureOption,
    WhereOption,
    command_group,
)
from cli.options import settings as environment
from cli.sessions import open_session

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from sqlalchemy.orm import Session

    from registry.models import Encoder
    from registry.search import Neighbour

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Attach ``ecdreg similar`` and ``ecdreg encoders list|default``.

    Parameters
    ----------
    app
        The root application.
    """
    app.command("similar")(similar)
    group = command_group("List what yields vectors, and choose what searches use.")
    group.command("list")(list_encoders)
    group.command("default")(default)
    app.add_typer(group, name="encoders")


def similar(
    ident: Annotated[
        str | None, typer.Argument(metavar="ID", help="A crystal's id, or source:id.", show_default=False)
    ] = None,
    text: Annotated[
        str | None, typer.Option("--text", metavar="SENTENCE", help="What the crystals should be like, in words.")
    ] = None,
    structure: StructureOption = None,
    density: DensityOption = None,
    reference: ReferenceOption = None,
    level_of_theory: LevelOfTheoryOption = None,
    encoder: EncoderOption = None,
    k: KOption = 10,
    where: WhereOption = None,
    json: JsonOption = False,
) -> None:
    """Find the crystals most like one of the registry, a sentence, or files.

    Nearest first, by the cosine distance of their vectors: 0 is the same direction, 2 the opposite.
    A sentence needs an encoder that reads texts, a file goes through the same slices and texts as an
    ingest. `ecdreg encoders list` shows the encoders.

    \b
    Examples:
      ecdreg similar mp-1022 -k 5
      ecdreg similar --text "rock salt oxide" --where "k_vrh > 100"
      ecdreg similar mp-1022 --where "elements @> ARRAY['Ti'] AND space_group_number = 225"
      ecdreg similar --density CHGCAR --reference CHGCAR.reference --encoder efficientnet_lite0:metric
      ecdreg similar --density CHGCAR --reference CHGCAR.reference --level-of-theory GGA
    """
    _check_form(ident, text, structure, density, reference=reference, level_of_theory=level_of_theory)
    from registry.search import similar_to_crystal, similar_to_vector

    with open_session() as session:
        if ident is not None:
            found = similar_to_crystal(session, ident, encoder=encoder, k=k, where=where)
        else:
            if text is not None:
                chosen = _text_encoder(session, encoder)
                vector = _text_vector(session, chosen, text)
            else:
                chosen = _file_encoder(session, encoder, density=density is not None)
                vector = _file_vector(session, chosen, structure, density, reference, level_of_theory)
            output.note(f"encoder: {chosen.name}")
            found = similar_to_vector(session, vector, encoder=chosen.name, k=k, where=where)
    rows = [{"rank": rank, **asdict(neighbour)} for rank, neighbour in enumerate(found, start=1)]
    if json:
        output.json(rows)
    elif not rows:
        output.note("no crystal passes the filter" if where else "no crystal has a vector of this encoder")
    else:
        output.table([_row(rank, n) for rank, n in enumerate(found, start=1)], formats={"distance": ".4f"})


def list_encoders(json: JsonOption = False) -> None:
    """List the encoders: frozen backbones and trained towers, with the number of their vectors.

    \b
    Examples:
      ecdreg encoders list
      ecdreg encoders list --json
    """

    with open_session() as session:
        rows = _encoders(session)
    if json:
        output.json(rows)
    elif not rows:
        output.note("no encoders yet; `ecdreg train stacked` makes some")
    else:
        output.table(
            [{**row, "aliases": ", ".join(row["aliases"]), "frozen": "yes" if row["frozen"] else "no"} for row in rows]
        )


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


def _check_form(
    ident: str | None,
    text: str | None,
    structure: Path | None,
    density: Path | None,
    *,
    reference: Path | None,
    level_of_theory: str | None,
) -> None:
    files = structure is not None or density is not None
    if (ident is not None) + (text is not None) + files != 1:
        raise typer.BadParameter("give one of: an ID, --text, or files (--structure and --density may go together)")
    for option, value in (("--reference", reference), ("--level-of-theory", level_of_theory)):
        if value is not None and density is None:
            raise typer.BadParameter(f"{option} {value} belongs to a --density; give both")


# ---------------------------------------------------------------------------- encoders


def _encoders(session: Session) -> list[dict[str, Any]]:
    from sqlalchemy import text

    rows = session.execute(
        text(
            """
            SELECT e.name AS encoder, e.modality, e.dim, r.name AS recipe, e.text_level,
                   (SELECT count(*) FROM embeddings v WHERE v.encoder_id = e.id) AS vectors,
                   e.model_version_id IS NULL AS frozen,
                   ARRAY(SELECT a.alias FROM encoder_aliases a WHERE a.encoder_id = e.id ORDER BY a.alias) AS aliases
            FROM encoders e LEFT JOIN image_recipes r ON r.id = e.recipe_id
            ORDER BY e.id
            """
        )
    )
    return [dict(row) for row in rows.mappings()]


def _text_encoder(session: Session, name: str | None) -> Encoder:
    """The encoder of a sentence: the one named, else the default if it reads texts, else a frozen one that does."""
    from registry.encoders import resolve_encoder
    from registry.errors import NotFoundError

    if name is not None:
        return resolve_encoder(session, name)
    candidates = _candidates(session)
    readers = [e for e in candidates if e.modality == "text"]
    if not readers:
        there = ", ".join(e.name for e in candidates) or "none"
        raise NotFoundError(f"no encoder reads texts (encoders: {there}); `ecdreg train text` makes one")
    # MiniLM is made for sentences, and bond lengths are what the keywords level is about.
    return next((e for e in readers[:1] if _is_default(session, e)), None) or next(
        (e for e in readers if e.name == "minilm:keywords"), readers[0]
    )


def _file_encoder(session: Session, name: str | None, *, density: bool) -> Encoder:
    """The encoder of files: the one named, else the default if the files hold what it reads, else a frozen one."""
    from registry.encoders import resolve_encoder
    from registry.errors import NotFoundError

    if name is not None:
        return resolve_encoder(session, name)
    candidates = _candidates(session)
    # Every density file brings its structure along, so that texts can always be made.
    readable = [e for e in candidates if density or e.recipe_id is None]
    if not readable:
        there = ", ".join(e.name for e in candidates) or "none"
        wanted = "files" if density else "a structure alone"
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


# ----------------------------------------------------------------------------- vectors


def _text_vector(session: Session, encoder: Encoder, text: str) -> NDArray[np.float32]:
    from train.encoding import encode_text

    return encode_text(session, environment(), encoder, text)


def _file_vector(
    session: Session,
    encoder: Encoder,
    structure: Path | None,
    density: Path | None,
    reference: Path | None,
    level_of_theory: str | None,
) -> NDArray[np.float32]:
    from train.encoding import encode_crystal, encoder_inputs

    reads = encoder_inputs(session, encoder)
    crystal = read_crystal(
        structure,
        density,
        reference=reference,
        level_of_theory=level_of_theory,
        recipes=() if reads.recipe is None else (reads.recipe,),
        texts=reads.text_level is not None,
    )
    return encode_crystal(session, environment(), encoder, crystal)


def _row(rank: int, neighbour: Neighbour) -> dict[str, object]:
    return {
        "rank": rank,
        "id": f"{neighbour.source}:{neighbour.source_id}",
        "formula": neighbour.formula,
        "distance": neighbour.distance,
        "space group": neighbour.space_group_symbol,
        "formation energy [eV/atom]": neighbour.formation_energy_per_atom,
        "E_Fermi [eV]": neighbour.efermi,
        "K_VRH [GPa]": neighbour.k_vrh,
    }
