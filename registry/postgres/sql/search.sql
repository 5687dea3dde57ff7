-- Similarity search among current revisions. A filter must be part of the search (argument "within"): applied afterwards,
-- it would leave fewer than k rows.
--
-- The search is exact where that is fast or there is no index. Otherwise it uses the partial HNSW index of the encoder,
-- which has half precision, and computes the distances of its candidates again in full precision.
CREATE TYPE neighbour AS (
    source text,
    source_id text,
    formula text,
    distance double precision,
    space_group_symbol text,
    /* target columns */
    crystal_id bigint
);

COMMENT ON TYPE neighbour IS 'one answer of a similarity search';
COMMENT ON COLUMN neighbour.source IS 'source of the crystal';
COMMENT ON COLUMN neighbour.source_id IS 'id of the crystal in its source';
COMMENT ON COLUMN neighbour.formula IS 'reduced formula';
COMMENT ON COLUMN neighbour.distance IS
    'cosine: 0 (same direction) to 2 (opposite), to 6 decimals; l2: length of the difference; inner_product: minus the '
    'inner product, so that the smallest is the nearest; no unit';
COMMENT ON COLUMN neighbour.space_group_symbol IS 'space group, Hermann-Mauguin';
/* target comments of neighbour */
COMMENT ON COLUMN neighbour.crystal_id IS 'id of the crystal in this registry, to join with v_materials';

CREATE TYPE text_neighbour AS (
    source text,
    source_id text,
    formula text,
    score double precision,
    words_rank bigint,
    vector_rank bigint,
    distance double precision,
    space_group_symbol text,
    /* target columns */
    crystal_id bigint
);

COMMENT ON TYPE text_neighbour IS 'one answer of a search by words';
COMMENT ON COLUMN text_neighbour.source IS 'source of the crystal';
COMMENT ON COLUMN text_neighbour.source_id IS 'id of the crystal in its source';
COMMENT ON COLUMN text_neighbour.formula IS 'reduced formula';
COMMENT ON COLUMN text_neighbour.score IS
    'sum of 1 / (60 + rank) over words_rank and vector_rank (reciprocal rank fusion), to 6 decimals; the largest first';
COMMENT ON COLUMN text_neighbour.words_rank IS
    'rank by full-text search on the descriptions; equal texts share a rank; null where no word matches';
COMMENT ON COLUMN text_neighbour.vector_rank IS
    'rank by the distance of the embedding; null where no vector was given, or the crystal is not among the nearest';
COMMENT ON COLUMN text_neighbour.distance IS 'distance of the embedding, as of neighbour; null where vector_rank is';
COMMENT ON COLUMN text_neighbour.space_group_symbol IS 'space group, Hermann-Mauguin';
/* target comments of text_neighbour */
COMMENT ON COLUMN text_neighbour.crystal_id IS 'id of the crystal in this registry, to join with v_materials';

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
            USING ERRCODE = 'no_data_found', HINT = 'SELECT source, source_id, formula FROM v_materials lists all crystals.';
    ELSIF cardinality(found) > 1 THEN
        RAISE EXCEPTION 'more than one crystal %: %', quote_literal(ident), names
            USING ERRCODE = 'too_many_rows', HINT = 'Write the id as source:id.';
    END IF;
    RETURN found[1];
END
$body$;

COMMENT ON FUNCTION ecdreg_crystal(text) IS 'crystal_id of an id, or of source:id; an error where there is none, or more than one';

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
        hint := coalesce(hint, 'There are none yet: `ecdreg train` creates them.');
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

CREATE FUNCTION ecdreg_search(
    query vector, encoder encoders, k int, within bigint[], besides bigint[], metric text,
    OUT revision_id bigint, OUT distance double precision
) RETURNS SETOF record
LANGUAGE plpgsql STABLE ROWS 10
SET search_path FROM CURRENT
SET jit = off
-- Listed here so that the settings below end with the function.
SET hnsw.iterative_scan = relaxed_order
SET hnsw.ef_search = 64
SET enable_sort = on
AS $body$
DECLARE
    operator text := CASE metric WHEN 'cosine' THEN '<=>' WHEN 'l2' THEN '<->' WHEN 'inner_product' THEN '<#>' END;
    condition text := '';
    indexed float8;
    candidates int;
    found int;
BEGIN
    IF k IS NULL OR k < 1 THEN
        RAISE EXCEPTION 'k is %; it must be at least 1', coalesce(k::text, 'NULL')
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Give k => 10, or leave it out.';
    ELSIF operator IS NULL THEN
        RAISE EXCEPTION 'no metric %', quote_nullable(metric)
            USING ERRCODE = 'invalid_parameter_value', HINT = 'There are: cosine, l2, inner_product.';
    ELSIF query IS NULL THEN
        RAISE EXCEPTION 'the vector is NULL; there is no vector to search with'
            USING ERRCODE = 'null_value_not_allowed', HINT = 'embedding_of(source_id) gives that of a crystal.';
    ELSIF vector_dims(query) <> encoder.dim THEN
        RAISE EXCEPTION 'the vector has % dimensions, those of encoder % have %',
            vector_dims(query), quote_literal(encoder.name), encoder.dim
            USING ERRCODE = 'data_exception', HINT = 'Name the encoder that computed the vector.';
    ELSIF metric = 'cosine' AND vector_norm(query) = 0 THEN
        RAISE EXCEPTION 'the vector is zero and has no direction'
            USING ERRCODE = 'data_exception', HINT = 'Cosine distance needs a vector that is not zero.';
    END IF;
    IF metric = 'cosine' AND vector_norm(query) NOT BETWEEN 1e-15 AND 1e15 THEN
        query := l2_normalize(query);  -- products of such numbers overflow single precision
    END IF;
    IF within IS NOT NULL THEN
        condition := ' AND r.crystal_id = ANY ($2)';
    END IF;
    IF besides IS NOT NULL THEN
        condition := condition || ' AND r.crystal_id <> ALL ($3)';
    END IF;

    SELECT i.reltuples INTO indexed
    FROM pg_class i
    JOIN pg_index x ON x.indexrelid = i.oid AND x.indisvalid
    WHERE i.oid = to_regclass(format('ix_embeddings_hnsw_%s_%s', encoder.id, metric));
    -- For n crystals to search among and N in the index, an exact search compares n vectors. A search by the index visits
    -- about k N / n until k of them pass the filter, each at ten times the cost. A few thousand vectors are compared in
    -- milliseconds in any case. The largest number of half precision is 65,504.
    IF indexed IS NOT NULL
       AND coalesce(cardinality(within), indexed)::float8 ^ 2 > greatest(10.0 * k * indexed, 2000.0 ^ 2)
       AND vector_norm(query) < 65000
    THEN
        -- Half precision can swap neighbours at nearly equal distances, so that more than k candidates are compared again.
        -- A filter removes some of the candidates of the graph search, which needs more of them.
        candidates := CASE WHEN within IS NULL THEN k + 10 ELSE 2 * k + 20 END;
        -- With 40, one of 500 queries among 100,000 clustered vectors ended in a wrong cluster; with 64, none.
        PERFORM set_config('hnsw.ef_search', least(1000, greatest(64, 2 * k + 20))::text, true),
                set_config('enable_sort', 'off', true);
        -- The encoder's id and dimension must be constants of the plan for the index to be used.
        RETURN QUERY EXECUTE format(
            $search$
            SELECT n.revision_id, n.distance
            FROM (
                SELECT c.revision_id, c.distance, count(*) OVER () AS candidates
                FROM (
                    SELECT e.revision_id, e.embedding %3$s $1 AS distance
                    FROM embeddings e
                    WHERE e.encoder_id = %1$s
                      AND EXISTS (
                          SELECT FROM crystal_revisions r WHERE r.id = e.revision_id AND r.is_current%4$s OFFSET 0
                      )
                    ORDER BY e.embedding::halfvec(%2$s) %3$s $1::halfvec(%2$s)
                    LIMIT %5$s
                ) c
            ) n
            WHERE n.candidates = %5$s
            ORDER BY n.distance, n.revision_id
            LIMIT $4
            $search$,
            encoder.id, encoder.dim, operator, condition, candidates
        ) USING query, within, besides, k;
        GET DIAGNOSTICS found = ROW_COUNT;
        IF found > 0 THEN
            RETURN;
        END IF;
        -- The scan stopped before enough crystals passed the filter: there may be more.
        PERFORM set_config('enable_sort', 'on', true);
    END IF;

    RETURN QUERY EXECUTE format(
        $search$
        SELECT e.revision_id, e.embedding %2$s $1
        FROM embeddings e
        JOIN crystal_revisions r ON r.id = e.revision_id AND r.is_current%3$s
        WHERE e.encoder_id = %1$s
        ORDER BY 2, 1
        LIMIT $4
        $search$,
        encoder.id, operator, condition
    ) USING query, within, besides, k;
END
$body$;

COMMENT ON FUNCTION ecdreg_search(vector, encoders, int, bigint[], bigint[], text) IS
    'revisions of the k crystals nearest to a vector by a metric, among the crystals "within" (NULL: all) without the '
    'crystals "besides", and their distances; exact, or by the encoder''s HNSW index where that is faster';

CREATE FUNCTION ecdreg_nearest(
    query vector, encoder encoders, k int, within bigint[], besides bigint[], metric text
) RETURNS SETOF neighbour
LANGUAGE plpgsql STABLE ROWS 10
SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan
AS $body$
BEGIN
    RETURN QUERY
    SELECT m.source, m.source_id, m.formula,
           CASE WHEN metric = 'cosine' THEN round(n.distance::numeric, 6)::float8 ELSE n.distance END,
           m.space_group_symbol, /* target values */ m.crystal_id
    FROM ecdreg_search(query, encoder, k, within, besides, metric) n
    JOIN v_materials m ON m.revision_id = n.revision_id
    ORDER BY n.distance, n.revision_id;
END
$body$;

COMMENT ON FUNCTION ecdreg_nearest(vector, encoders, int, bigint[], bigint[], text) IS
    'answers of ecdreg_search with the properties of the crystals';

CREATE FUNCTION ecdreg_vector(crystal bigint, encoder encoders, ident text) RETURNS vector
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $body$
DECLARE
    found vector;
BEGIN
    SELECT e.embedding INTO found
    FROM embeddings e
    JOIN crystal_revisions r ON r.id = e.revision_id AND r.is_current
    WHERE e.encoder_id = encoder.id AND r.crystal_id = crystal;
    IF found IS NULL THEN
        RAISE EXCEPTION 'crystal % has no embedding of encoder %', quote_literal(ident), quote_literal(encoder.name)
            USING ERRCODE = 'no_data_found',
                  HINT = CASE WHEN encoder.model_version_id IS NULL AND encoder.modality IN ('composition', 'density')
                      THEN format('`ecdreg encoders add %s` computes missing embeddings of crystals that have its inputs; '
                                  'pettifor needs compositions only.', encoder.name)
                      ELSE 'Its image or text may be missing, or newer than the last run of the encoder: train or predict again.'
                  END;
    END IF;
    RETURN found;
END
$body$;

COMMENT ON FUNCTION ecdreg_vector(bigint, encoders, text) IS
    'embedding of a crystal by an encoder; an error where there is none, which names the crystal by the third argument';

CREATE FUNCTION embedding_of(source_id text, encoder text DEFAULT NULL) RETURNS vector
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $body$
BEGIN
    RETURN ecdreg_vector(ecdreg_crystal($1), ecdreg_encoder($2), $1);
END
$body$;

COMMENT ON FUNCTION embedding_of(text, text) IS
    'embedding of a crystal (id, or source:id) by an encoder (name or alias; NULL: the alias ''default''); no unit';

CREATE FUNCTION similar_crystals(
    source_id text,
    encoder text DEFAULT NULL,
    k int DEFAULT 10,
    within bigint[] DEFAULT NULL,
    metric text DEFAULT 'cosine'
) RETURNS SETOF neighbour
LANGUAGE plpgsql STABLE ROWS 10 SET search_path FROM CURRENT
AS $body$
DECLARE
    crystal bigint := ecdreg_crystal($1);
    chosen encoders := ecdreg_encoder($2);
    query vector := ecdreg_vector(crystal, chosen, $1);
    same bigint[];
BEGIN
    -- The material itself is not a neighbour, under any source.
    SELECT array_agg(c.id) INTO same
    FROM crystals o
    JOIN crystals c ON c.material_key = o.material_key
    WHERE o.id = crystal;
    RETURN QUERY SELECT * FROM ecdreg_nearest(query, chosen, $3, $4, same, $5);
END
$body$;

COMMENT ON FUNCTION similar_crystals(text, text, int, bigint[], text) IS
    'the k crystals most similar to one (id, or source:id) by the distance of their embeddings; the crystal itself and '
    'its material under other sources are left out; "within": crystal_ids of v_materials to search among; "metric": '
    'cosine, l2 or inner_product';

CREATE FUNCTION similar_to_vector(
    query vector,
    encoder text DEFAULT NULL,
    k int DEFAULT 10,
    within bigint[] DEFAULT NULL,
    metric text DEFAULT 'cosine'
) RETURNS SETOF neighbour
LANGUAGE plpgsql STABLE ROWS 10 SET search_path FROM CURRENT
AS $body$
BEGIN
    RETURN QUERY SELECT * FROM ecdreg_nearest($1, ecdreg_encoder($2), $3, $4, NULL, $5);
END
$body$;

COMMENT ON FUNCTION similar_to_vector(vector, text, int, bigint[], text) IS
    'the k crystals whose embeddings are nearest to a vector; "within": crystal_ids of v_materials to search among; '
    '"metric": cosine, l2 or inner_product';

CREATE FUNCTION similar_to_text(
    words text,
    query vector DEFAULT NULL,
    encoder text DEFAULT NULL,
    k int DEFAULT 10,
    within bigint[] DEFAULT NULL,
    metric text DEFAULT 'cosine'
) RETURNS SETOF text_neighbour
LANGUAGE plpgsql STABLE ROWS 10 SET search_path FROM CURRENT
AS $body$
DECLARE
    chosen encoders;
    -- Any of the words, as lexemes; the argument is never parsed as a query. Null where there are none: an empty query
    -- would cause a NOTICE.
    wanted tsquery := CASE
        WHEN length(to_tsvector('english', $1)) > 0
        THEN replace(plainto_tsquery('english', $1)::text, ' & ', ' | ')::tsquery
    END;
    pool int;
BEGIN
    IF $4 IS NULL OR $4 < 1 THEN
        RAISE EXCEPTION 'k is %; it must be at least 1', coalesce($4::text, 'NULL')
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Give k => 10, or leave it out.';
    ELSIF $2 IS NULL AND wanted IS NULL THEN
        RAISE EXCEPTION 'no word to search with in %', quote_nullable($1)
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Stop words such as ''the'' or ''of'' do not count.';
    END IF;
    IF $2 IS NOT NULL THEN
        chosen := ecdreg_encoder($3);
        IF $3 IS NULL AND chosen.modality <> 'text' THEN
            RAISE EXCEPTION 'the default encoder % reads no texts', quote_literal(chosen.name)
                USING ERRCODE = 'undefined_object', HINT = 'Name the encoder that computed the vector.';
        END IF;
    END IF;
    pool := greatest(100, least($4, 1000000) * 2);
    RETURN QUERY
    WITH by_words AS (
        SELECT d.revision_id,
               rank() OVER (ORDER BY max(ts_rank(to_tsvector('english', d.text), wanted, 1)) DESC) AS place
        FROM descriptions d
        JOIN crystal_revisions r ON r.id = d.revision_id AND r.is_current
        WHERE to_tsvector('english', d.text) @@ wanted
          AND ($5 IS NULL OR r.crystal_id = ANY ($5))
        GROUP BY d.revision_id
    ), by_vector AS (
        SELECT n.revision_id, n.distance, row_number() OVER (ORDER BY n.distance, n.revision_id) AS place
        FROM ecdreg_search($2, chosen, pool, $5, NULL, $6) n
        WHERE $2 IS NOT NULL
    ), best AS (
        SELECT revision_id, w.place AS words_place, v.place AS vector_place, v.distance,
               coalesce(1.0::float8 / (60 + w.place), 0) + coalesce(1.0::float8 / (60 + v.place), 0) AS score
        FROM by_words w
        FULL JOIN by_vector v USING (revision_id)
        ORDER BY score DESC, revision_id
        LIMIT $4
    )
    SELECT m.source, m.source_id, m.formula, round(b.score::numeric, 6)::float8, b.words_place, b.vector_place,
           CASE WHEN $6 = 'cosine' THEN round(b.distance::numeric, 6)::float8 ELSE b.distance END,
           m.space_group_symbol, /* target values */ m.crystal_id
    FROM best b
    JOIN v_materials m ON m.revision_id = b.revision_id
    ORDER BY b.score DESC, b.revision_id;
END
$body$;

COMMENT ON FUNCTION similar_to_text(text, vector, text, int, bigint[], text) IS
    'the k crystals that match some words best: full-text search on their descriptions, fused by reciprocal ranks with '
    'the distances to the embedding of the words, where it is given; "encoder", "within" and "metric" '
    'as of similar_to_vector';
