-- Similarity search: exact, by cosine distance, among current revisions. A filter must be part
-- of the search (argument "within"): after it, it would leave fewer than k rows.
CREATE TYPE neighbour AS (
    source text,
    source_id text,
    formula text,
    distance double precision,
    space_group_symbol text,
    formation_energy_per_atom double precision,
    efermi double precision,
    k_vrh double precision
);

COMMENT ON TYPE neighbour IS 'one answer of a similarity search';
COMMENT ON COLUMN neighbour.source IS 'source of the crystal';
COMMENT ON COLUMN neighbour.source_id IS 'id of the crystal in its source';
COMMENT ON COLUMN neighbour.formula IS 'reduced formula';
COMMENT ON COLUMN neighbour.distance IS 'cosine distance, 0 (same direction) to 2 (opposite), to 6 decimals; no unit';
COMMENT ON COLUMN neighbour.space_group_symbol IS 'space group, Hermann-Mauguin';
COMMENT ON COLUMN neighbour.formation_energy_per_atom IS 'formation energy [eV/atom]';
COMMENT ON COLUMN neighbour.efermi IS 'Fermi energy [eV]';
COMMENT ON COLUMN neighbour.k_vrh IS 'bulk modulus [GPa]';

CREATE FUNCTION ecdreg_crystal(ident text) RETURNS bigint
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $body$
DECLARE
    found bigint[];
    names text;
BEGIN
    SELECT array_agg(c.id), string_agg(c.source || ':' || c.source_id, ', ' ORDER BY c.source)
    INTO found, names
    FROM crystals c
    WHERE c.source_id = ident
       OR (c.source = split_part(ident, ':', 1) AND c.source_id = substr(ident, strpos(ident, ':') + 1));
    IF found IS NULL THEN
        RAISE EXCEPTION 'no crystal %', quote_nullable(ident)
            USING ERRCODE = 'no_data_found', HINT = 'SELECT source, source_id, formula FROM v_materials lists them.';
    ELSIF cardinality(found) > 1 THEN
        RAISE EXCEPTION 'more than one crystal %: %', quote_literal(ident), names
            USING ERRCODE = 'too_many_rows', HINT = 'Name one of them as source:id.';
    END IF;
    RETURN found[1];
END
$body$;

COMMENT ON FUNCTION ecdreg_crystal(text) IS 'crystal_id of an id, or of source:id; raises where there is none or more than one';

CREATE FUNCTION ecdreg_encoder(encoder text) RETURNS encoders
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $body$
DECLARE
    found encoders;
    hint text;
BEGIN
    SELECT e.* INTO found
    FROM encoders e
    LEFT JOIN encoder_aliases a ON a.encoder_id = e.id AND a.alias = coalesce($1, 'default')
    WHERE e.name = $1 OR a.alias IS NOT NULL
    ORDER BY e.name = $1 DESC NULLS LAST
    LIMIT 1;
    IF found.id IS NULL THEN
        SELECT 'There are: ' || string_agg(e.name, ', ' ORDER BY e.name) || '.' INTO hint FROM encoders e;
        hint := coalesce(hint, 'There are none yet: `ecdreg train` makes them.');
        IF $1 IS NULL THEN
            RAISE EXCEPTION 'no encoder has the alias ''default'', and none was named'
                USING ERRCODE = 'undefined_object', HINT = hint;
        END IF;
        RAISE EXCEPTION 'no encoder %', quote_literal($1) USING ERRCODE = 'undefined_object', HINT = hint;
    END IF;
    RETURN found;
END
$body$;

COMMENT ON FUNCTION ecdreg_encoder(text) IS 'encoder of a name or an alias; NULL is the alias ''default''';

CREATE FUNCTION ecdreg_nearest(query vector, encoder encoders, k int, within bigint[], besides text)
RETURNS SETOF neighbour
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $body$
BEGIN
    IF k IS NULL OR k < 1 THEN
        RAISE EXCEPTION 'k is %, but at least 1 neighbour must be asked for', coalesce(k::text, 'NULL')
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Give k => 10, or leave it out.';
    ELSIF query IS NULL THEN
        RAISE EXCEPTION 'there is no vector to search with'
            USING ERRCODE = 'null_value_not_allowed', HINT = 'embedding_of(source_id) gives that of a crystal.';
    ELSIF vector_dims(query) <> encoder.dim THEN
        RAISE EXCEPTION 'the vector has % dimensions, those of encoder % have %',
            vector_dims(query), quote_literal(encoder.name), encoder.dim
            USING ERRCODE = 'data_exception', HINT = 'Give the encoder that the vector is of.';
    ELSIF vector_norm(query) = 0 THEN
        RAISE EXCEPTION 'the vector is zero and has no direction'
            USING ERRCODE = 'data_exception', HINT = 'Cosine distance needs a vector of some length.';
    END IF;
    -- The encoder's id is a constant of the plan, so that an index of this encoder alone can be used.
    RETURN QUERY EXECUTE format(
        $search$
        SELECT m.source, m.source_id, m.formula, round(n.distance::numeric, 6)::float8, m.space_group_symbol,
               m.formation_energy_per_atom, m.efermi, m.k_vrh
        FROM (
            SELECT e.revision_id, e.embedding <=> $1 AS distance
            FROM embeddings e
            JOIN crystal_revisions r ON r.id = e.revision_id AND r.is_current
            JOIN crystals c ON c.id = r.crystal_id
            WHERE e.encoder_id = %s
              AND ($2 IS NULL OR r.crystal_id = ANY ($2))
              AND ($3 IS NULL OR c.material_key <> $3)
            ORDER BY e.embedding <=> $1, e.revision_id
            LIMIT $4
        ) n
        JOIN v_materials m ON m.revision_id = n.revision_id
        ORDER BY n.distance, n.revision_id
        $search$,
        encoder.id
    ) USING query, within, besides, k;
END
$body$;

COMMENT ON FUNCTION ecdreg_nearest(vector, encoders, int, bigint[], text) IS
    'the k crystals nearest to a vector, among the crystals "within" (NULL: all), without the material_key "besides"';

CREATE FUNCTION embedding_of(source_id text, encoder text DEFAULT NULL) RETURNS vector
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $body$
DECLARE
    crystal bigint := ecdreg_crystal($1);
    chosen encoders := ecdreg_encoder($2);
    found vector;
BEGIN
    SELECT e.embedding INTO found
    FROM embeddings e
    JOIN crystal_revisions r ON r.id = e.revision_id AND r.is_current
    WHERE e.encoder_id = chosen.id AND r.crystal_id = crystal;
    IF found IS NULL THEN
        RAISE EXCEPTION 'crystal % has no embedding of encoder %', quote_literal($1), quote_literal(chosen.name)
            USING ERRCODE = 'no_data_found',
                  HINT = 'Its image or text may be missing or newer than the encoder''s last run: train or predict again.';
    END IF;
    RETURN found;
END
$body$;

COMMENT ON FUNCTION embedding_of(text, text) IS
    'vector of a crystal (id, or source:id) under an encoder (name or alias; NULL: the alias ''default''); no unit';

CREATE FUNCTION similar_crystals(
    source_id text, encoder text DEFAULT NULL, k int DEFAULT 10, within bigint[] DEFAULT NULL
) RETURNS SETOF neighbour
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $body$
DECLARE
    key text;
BEGIN
    SELECT c.material_key INTO key FROM crystals c WHERE c.id = ecdreg_crystal($1);
    -- A material is no neighbour of its own, under whatever source.
    RETURN QUERY SELECT * FROM ecdreg_nearest(embedding_of($1, $2), ecdreg_encoder($2), $3, $4, key);
END
$body$;

COMMENT ON FUNCTION similar_crystals(text, text, int, bigint[]) IS
    'the k crystals most like one (id, or source:id) by the cosine distance of their embeddings; the crystal itself and '
    'its material under other sources are left out; "within": crystal_ids of v_materials to search among';

CREATE FUNCTION similar_to_vector(
    query vector, encoder text DEFAULT NULL, k int DEFAULT 10, within bigint[] DEFAULT NULL
) RETURNS SETOF neighbour
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $body$
BEGIN
    RETURN QUERY SELECT * FROM ecdreg_nearest($1, ecdreg_encoder($2), $3, $4, NULL);
END
$body$;

COMMENT ON FUNCTION similar_to_vector(vector, text, int, bigint[]) IS
    'the k crystals whose embeddings are nearest to a vector by cosine distance; "within": crystal_ids of v_materials '
    'to search among';
