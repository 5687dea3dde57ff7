-- Examples of docs/sql.md: a sentence, a statement, and its result on the bundled sample after `make demo` (lines
-- that start with -->). `python -m docs.generate --examples` runs them again and writes this file.

-- Properties of crystals: columns of v_materials in their units, filtered like any table.
SELECT source_id, chemsys, space_group_symbol, k_vrh, efermi
FROM v_materials
WHERE k_vrh > 250 AND NOT 'k_vrh' = ANY (suspect)
ORDER BY k_vrh DESC
LIMIT 5;
--> source_id | chemsys  | space_group_symbol |   k_vrh |  efermi
--> ----------+----------+--------------------+---------+--------
--> mp-101    | Ir       | Fm-3m              | 346.323 | 10.1566
--> mp-1086   | C-Ta     | Fm-3m              | 323.936 |  7.8309
--> mp-867107 | Be-Os-Si | Fm-3m              |  286.29 | 9.06829
--> mp-867275 | Be-Os-V  | Fm-3m              | 279.968 | 7.22562
--> mp-865680 | Os-Si-Ti | Fm-3m              | 278.973 | 9.49202
--> (5 rows)

-- Filter by elements: `@>` means "contains all of", `&&` means "contains any of".
SELECT chemsys, count(*) AS crystals, round(avg(k_vrh)::numeric, 1) AS mean_k_vrh
FROM v_materials
WHERE elements && ARRAY['Ti', 'Zr'] AND k_vrh IS NOT NULL
GROUP BY chemsys
ORDER BY mean_k_vrh DESC
LIMIT 5;
--> chemsys  | crystals | mean_k_vrh
--> ---------+----------+-----------
--> Os-Si-Ti |        1 |      279.0
--> Os-Ta-Ti |        1 |      268.3
--> Nb-Re-Ti |        1 |      253.9
--> C-Ti     |        1 |      252.6
--> N-Zr     |        1 |      246.9
--> (5 rows)

-- Crystals most similar to one crystal, by the default encoder. The crystal itself is left out.
SELECT source_id, formula, distance, k_vrh
FROM similar_crystals('mp-1022', k => 5);
--> source_id | formula | distance |   k_vrh
--> ----------+---------+----------+--------
--> mp-8041   | Rb2S    | 0.016181 | 15.1494
--> mp-11327  | Rb2Se   | 0.031306 | 13.8966
--> mp-1266   | Na2Se   | 0.048884 | 25.8601
--> mp-2352   | Na2O    | 0.113512 |  45.637
--> mp-2286   | Li2Se   |  0.11384 | 33.6946
--> (5 rows)

-- The same with another encoder and another distance.
SELECT source_id, formula, distance, k_vrh
FROM similar_crystals('mp-1022', encoder => 'minilm:keywords', k => 5, metric => 'l2');
--> source_id | formula | distance |   k_vrh
--> ----------+---------+----------+--------
--> mp-15724  | KNa2Sb  |  0.78978 | 19.5068
--> mp-463    | KF      | 0.796303 | 28.8691
--> mp-867748 | ScSnRu2 | 0.834807 | 170.902
--> mp-605034 | K2NiF6  | 0.839663 | 15.9941
--> mp-1476   | ScS     | 0.849178 |  101.29
--> (5 rows)

-- Search among some crystals only: the argument `within` filters before the search. A WHERE clause filters after the
-- search and leaves fewer rows.
SELECT source_id, formula, distance, k_vrh
FROM similar_crystals(
    'mp-1022', k => 5,
    within => ARRAY(SELECT crystal_id FROM v_materials WHERE elements @> '{S}' OR elements @> '{Se}')
);
--> source_id | formula | distance |   k_vrh
--> ----------+---------+----------+--------
--> mp-8041   | Rb2S    | 0.016181 | 15.1494
--> mp-11327  | Rb2Se   | 0.031306 | 13.8966
--> mp-1266   | Na2Se   | 0.048884 | 25.8601
--> mp-2286   | Li2Se   |  0.11384 | 33.6946
--> mp-1087   | SrS     | 0.216901 | 46.9751
--> (5 rows)

-- A join with v_materials adds the other columns.
SELECT n.formula, n.distance, m.prototype, m.volume_per_atom
FROM similar_crystals('mp-1022', k => 5) n
JOIN v_materials m USING (crystal_id)
ORDER BY n.distance;
--> formula | distance | prototype    | volume_per_atom
--> --------+----------+--------------+----------------
--> Rb2S    | 0.016181 | AB2-cF12-225 |         39.2021
--> Rb2Se   | 0.031306 | AB2-cF12-225 |         43.5967
--> Na2Se   | 0.048884 | AB2-cF12-225 |         25.7379
--> Na2O    | 0.113512 | AB2-cF12-225 |         13.7513
--> Li2Se   |  0.11384 | AB2-cF12-225 |         17.5722
--> (5 rows)

-- Crystals near the midpoint of two crystals: vectors can be added.
SELECT source_id, formula, distance
FROM similar_to_vector(
    l2_normalize(embedding_of('mp-1022')) + l2_normalize(embedding_of('mp-2')), k => 5
);
--> source_id | formula | distance
--> ----------+---------+---------
--> mp-2      | Pd      | 0.152646
--> mp-1022   | K2S     | 0.152646
--> mp-1266   | Na2Se   | 0.165675
--> mp-81     | Au      | 0.169483
--> mp-8041   | Rb2S    | 0.172479
--> (5 rows)

-- Search by words in the descriptions.
SELECT source_id, formula, words_rank, score
FROM similar_to_text('Heusler structured', k => 5);
--> source_id | formula | words_rank |    score
--> ----------+---------+------------+---------
--> mp-862600 | Be2PtRh |          1 | 0.016393
--> mp-867271 | Be2CoNi |          1 | 0.016393
--> mp-866224 | Be2NiPt |          3 | 0.015873
--> mp-20265  | LiIn2Pt |          4 | 0.015625
--> mp-22493  | YInAu2  |          4 | 0.015625
--> (5 rows)

-- Search by words and by their vector, fused by reciprocal ranks. `ecdreg similar --text` computes the vector of a
-- sentence; this example uses the vector of the text of a crystal.
SELECT source_id, formula, words_rank, vector_rank, score
FROM similar_to_text(
    'Halite, Rock Salt structured', embedding_of('mp-1519', 'minilm:keywords'), 'minilm:keywords', k => 5
);
--> source_id | formula | words_rank | vector_rank |    score
--> ----------+---------+------------+-------------+---------
--> mp-1519   | CaTe    |          7 |           1 | 0.031319
--> mp-1000   | BaTe    |          7 |           2 | 0.031054
--> mp-1086   | TaC     |          7 |           5 |  0.03031
--> mp-1883   | SnTe    |          7 |           9 | 0.029418
--> mp-23870  | NaH     |          7 |          12 | 0.028814
--> (5 rows)

-- The nearest neighbour of each of several crystals.
SELECT m.formula, n.formula AS nearest, n.distance
FROM v_materials m, similar_crystals(m.source || ':' || m.source_id, k => 1) n
WHERE m.source_id IN ('mp-2', 'mp-23', 'mp-1519')
ORDER BY m.formula;
--> formula | nearest | distance
--> --------+---------+---------
--> CaTe    | BaTe    | 0.049089
--> Ni      | Ir      | 0.098115
--> Pd      | Pt      |  0.05855
--> (3 rows)

-- The cosine distance of two crystals under the default encoder.
SELECT round((embedding_of('mp-2') <=> embedding_of('mp-23'))::numeric, 6) AS distance;
--> distance
--> --------
--> 0.182614
--> (1 row)

-- Scores of all models and baselines in cross-validation.
SELECT target, model, cv_rmse, cv_rmse_sd, unit
FROM v_leaderboard
WHERE target = 'k_vrh'
ORDER BY cv_rmse;
--> target | model           | cv_rmse | cv_rmse_sd | unit
--> -------+-----------------+---------+------------+-----
--> k_vrh  | stacked         | 11.4841 |     3.6986 | GPa
--> k_vrh  | density         | 11.9782 |     2.8015 | GPa
--> k_vrh  | composition     | 18.6449 |     2.6734 | GPa
--> k_vrh  | baseline-magpie |  24.716 |     4.6544 | GPa
--> k_vrh  | image           | 37.0173 |     7.7461 | GPa
--> k_vrh  | text            | 52.3029 |    10.6111 | GPa
--> k_vrh  | baseline-mean   | 82.5386 |     7.5074 | GPa
--> (7 rows)

-- Predictions of a model for the holdout with the true values, the largest errors first.
SELECT source_id, formula, true_value, predicted, spread, unit
FROM v_predictions
WHERE model = 'stacked' AND target = 'k_vrh' AND subset = 'holdout'
ORDER BY abs(error) DESC
LIMIT 5;
--> source_id | formula | true_value | predicted |  spread | unit
--> ----------+---------+------------+-----------+---------+-----
--> mp-861501 | AgHgPd2 |    118.052 |   97.2057 | 5.83168 | GPa
--> mp-11247  | Li3Au   |    42.2634 |   22.0438 |  6.1243 | GPa
--> mp-1132   | CdO     |    126.236 |   144.824 | 6.88911 | GPa
--> mp-864654 | Zn2NiRh |    156.388 |   171.363 |  5.8823 | GPa
--> mp-20265  | LiIn2Pt |      78.04 |   92.3455 | 2.08203 | GPa
--> (5 rows)

-- Ingest runs with the numbers of their outcomes.
SELECT source, status, crystals, created, partial, rejected
FROM v_ingest_runs;
--> source | status   | crystals | created | partial | rejected
--> -------+----------+----------+---------+---------+---------
--> sample | finished |      200 |     200 |       0 |        0
--> (1 row)

-- Crystals that were not ingested completely, with the reason.
SELECT source, source_id, outcome, reason
FROM v_ingest_outcomes
WHERE outcome IN ('partial', 'deferred', 'rejected')
LIMIT 5;
--> source | source_id | outcome | reason
--> -------+-----------+---------+-------
--> (0 rows)
