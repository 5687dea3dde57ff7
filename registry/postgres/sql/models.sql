-- Predictions of models beside the known values.
CREATE VIEW v_predictions AS
SELECT x.name AS model,
       x.target,
       q.unit,
       x.version,
       m.fold,
       m.phase,
       p.subset,
       c.source,
       c.source_id,
       r.formula,
       known.value AS true_value,
       p.value AS predicted,
       p.value - known.value AS error,
       p.spread,
       p.lower,
       p.upper,
       known.value BETWEEN p.lower AND p.upper AS covered,
       p.out_of_domain,
       p.model_version_id,
       p.revision_id
FROM predictions p
JOIN model_versions m ON m.id = p.model_version_id
JOIN experiments x ON x.id = m.experiment_id
JOIN properties q ON q.name = x.target
JOIN crystal_revisions r ON r.id = p.revision_id
JOIN crystals c ON c.id = r.crystal_id
LEFT JOIN LATERAL (
    SELECT v.value
    FROM property_values v
    JOIN levels_of_theory l ON l.name = v.level_of_theory
    WHERE v.revision_id = p.revision_id AND v.property = x.target
    ORDER BY l.preference, l.name
    LIMIT 1
) known ON true;

COMMENT ON VIEW v_predictions IS 'predictions beside the known values, both in the unit of the target';
COMMENT ON COLUMN v_predictions.model IS 'name of the experiment';
COMMENT ON COLUMN v_predictions.target IS 'property that is predicted';
COMMENT ON COLUMN v_predictions.unit IS 'unit of true_value, predicted, error, spread, lower and upper';
COMMENT ON COLUMN v_predictions.version IS 'version of the model, counted for each name and target';
COMMENT ON COLUMN v_predictions.fold IS 'fold that scored the model; null for the refit on all of cv';
COMMENT ON COLUMN v_predictions.phase IS 'phase of training: fit, readout or finetune';
COMMENT ON COLUMN v_predictions.subset IS 'subset of the crystal: train, validation, holdout, or none (not in the split)';
COMMENT ON COLUMN v_predictions.source IS 'source of the crystal';
COMMENT ON COLUMN v_predictions.source_id IS 'id of the crystal in its source';
COMMENT ON COLUMN v_predictions.formula IS 'reduced formula';
COMMENT ON COLUMN v_predictions.true_value IS 'known value at the preferred level of theory [unit]; null where it is unknown';
COMMENT ON COLUMN v_predictions.predicted IS 'predicted value [unit]';
COMMENT ON COLUMN v_predictions.error IS 'predicted minus true_value [unit]';
COMMENT ON COLUMN v_predictions.spread IS 'standard deviation over the models of the folds [unit]; not an error bar';
COMMENT ON COLUMN v_predictions.lower IS 'lower end of the 90 % interval [unit]';
COMMENT ON COLUMN v_predictions.upper IS 'upper end of the 90 % interval [unit]';
COMMENT ON COLUMN v_predictions.covered IS
    'whether the interval contains true_value; null without an interval or a true_value';
COMMENT ON COLUMN v_predictions.out_of_domain IS
    'whether the crystal is outside the domain of the training data, where its interval may be too narrow; null for a model '
    'without features';
COMMENT ON COLUMN v_predictions.model_version_id IS 'row of model_versions';
COMMENT ON COLUMN v_predictions.revision_id IS 'revision of the crystal that was predicted';

-- One row for each configuration: scores of several seeds are averaged; the newest run of a seed counts.
-- Sorted by the scores of cross-validation, never by the holdout.
CREATE VIEW v_leaderboard AS
WITH runs AS (
    SELECT DISTINCT ON (x.target, x.split_id, x.name, x.config_sha256, x.seed)
           x.id, x.target, x.split_id, x.name, x.kind, x.config_sha256, x.version,
           x.config ->> 'trained_on' AS trained_on
    FROM experiments x
    WHERE x.status = 'finished'
    ORDER BY x.target, x.split_id, x.name, x.config_sha256, x.seed, x.version DESC
), last_phase AS (
    SELECT m.experiment_id, max(array_position(ARRAY['fit', 'readout', 'finetune'], m.phase)) AS rank
    FROM model_versions m
    GROUP BY m.experiment_id
), scores AS MATERIALIZED (
    SELECT m.experiment_id, m.fold, s.subset, s.name, s.value, s.n
    FROM model_versions m
    JOIN last_phase p ON p.experiment_id = m.experiment_id
                     AND m.phase = (ARRAY['fit', 'readout', 'finetune'])[p.rank]
    JOIN metrics s ON s.model_version_id = m.id
                  AND s.subset = CASE WHEN m.fold IS NULL THEN 'holdout' ELSE 'validation' END
), cv_rows AS MATERIALIZED (
    SELECT s.experiment_id, sum(s.n) AS n
    FROM scores s
    WHERE s.subset = 'validation' AND s.name = 'rmse'
    GROUP BY s.experiment_id
), models AS (
    SELECT x.target,
           q.unit,
           x.name AS model,
           max(x.kind) AS kind,
           t.name AS split,
           max(x.version) AS version,
           count(DISTINCT x.id) AS n_runs,
           count(DISTINCT s.fold) AS folds,
           max(n.n)::bigint AS n_cv,
           round((avg(s.value) FILTER (WHERE s.subset = 'validation' AND s.name = 'r2'))::numeric, 4)::float8 AS cv_r2,
           round((stddev_samp(s.value) FILTER (WHERE s.subset = 'validation' AND s.name = 'r2'))::numeric, 4)::float8 AS cv_r2_sd,
           round((avg(s.value) FILTER (WHERE s.subset = 'validation' AND s.name = 'rmse'))::numeric, 4)::float8 AS cv_rmse,
           round((stddev_samp(s.value) FILTER (WHERE s.subset = 'validation' AND s.name = 'rmse'))::numeric, 4)::float8
               AS cv_rmse_sd,
           max(s.n) FILTER (WHERE s.subset = 'holdout')::bigint AS n_holdout,
           round((avg(s.value) FILTER (WHERE s.subset = 'holdout' AND s.name = 'r2'))::numeric, 4)::float8 AS holdout_r2,
           round((stddev_samp(s.value) FILTER (WHERE s.subset = 'holdout' AND s.name = 'r2'))::numeric, 4)::float8
               AS holdout_r2_sd,
           round((avg(s.value) FILTER (WHERE s.subset = 'holdout' AND s.name = 'rmse'))::numeric, 4)::float8 AS holdout_rmse,
           round((stddev_samp(s.value) FILTER (WHERE s.subset = 'holdout' AND s.name = 'rmse'))::numeric, 4)::float8
               AS holdout_rmse_sd,
           array_agg(DISTINCT x.id) AS experiments,
           max(x.trained_on) AS trained_on,
           x.config_sha256
    FROM runs x
    JOIN properties q ON q.name = x.target
    JOIN splits t ON t.id = x.split_id
    LEFT JOIN scores s ON s.experiment_id = x.id
    LEFT JOIN cv_rows n ON n.experiment_id = x.id
    GROUP BY x.target, q.unit, x.name, t.name, x.split_id, x.config_sha256
)
SELECT g.target, g.unit, g.model, g.kind, g.split, g.version, g.n_runs, g.folds, g.n_cv, g.cv_r2, g.cv_r2_sd, g.cv_rmse,
       g.cv_rmse_sd, g.n_holdout, g.holdout_r2, g.holdout_r2_sd, g.holdout_rmse, g.holdout_rmse_sd,
       round(i.cv, 4)::float8 AS cv_coverage,
       round(i.holdout, 4)::float8 AS holdout_coverage,
       g.trained_on,
       g.config_sha256
FROM models g
-- Last, and for each model: a query for one split must not count the predictions of all others.
CROSS JOIN LATERAL (
    SELECT avg(one.cv) AS cv, avg(one.holdout) AS holdout
    FROM (
        SELECT avg((k.value BETWEEN p.lower AND p.upper)::int) FILTER (WHERE p.subset = 'validation') AS cv,
               avg((k.value BETWEEN p.lower AND p.upper)::int) FILTER (WHERE p.subset = 'holdout') AS holdout
        FROM model_versions m
        JOIN predictions p ON p.model_version_id = m.id AND p.lower IS NOT NULL
        CROSS JOIN LATERAL (
            SELECT v.value
            FROM property_values v
            JOIN levels_of_theory l ON l.name = v.level_of_theory
            WHERE v.revision_id = p.revision_id AND v.property = g.target
            ORDER BY l.preference, l.name
            LIMIT 1
        ) k
        WHERE m.experiment_id = ANY (g.experiments)
        GROUP BY m.experiment_id
    ) one
) i
ORDER BY g.target, g.split, g.cv_rmse NULLS LAST, g.model;

COMMENT ON VIEW v_leaderboard IS
    'scores of every configuration in the last phase it was trained for, to 4 decimals (the table metrics has all digits); '
    'sorted by target and cv_rmse, never by the holdout';
COMMENT ON COLUMN v_leaderboard.target IS 'property that is predicted';
COMMENT ON COLUMN v_leaderboard.unit IS 'unit of every rmse of the row';
COMMENT ON COLUMN v_leaderboard.model IS 'name of the experiment; baselines are included';
COMMENT ON COLUMN v_leaderboard.kind IS 'kind of the model';
COMMENT ON COLUMN v_leaderboard.split IS 'split that it was trained and scored on; compare only within one';
COMMENT ON COLUMN v_leaderboard.version IS 'newest version of the model with this configuration';
COMMENT ON COLUMN v_leaderboard.n_runs IS 'finished runs that differ in their seed';
COMMENT ON COLUMN v_leaderboard.folds IS 'folds of the cross-validation';
COMMENT ON COLUMN v_leaderboard.n_cv IS 'crystals that the folds of one run scored';
COMMENT ON COLUMN v_leaderboard.cv_r2 IS 'R^2 on the fold left out, mean over folds and runs';
COMMENT ON COLUMN v_leaderboard.cv_r2_sd IS 'its standard deviation over folds and runs';
COMMENT ON COLUMN v_leaderboard.cv_rmse IS 'root mean square error on the fold left out, mean over folds and runs [unit]';
COMMENT ON COLUMN v_leaderboard.cv_rmse_sd IS 'its standard deviation over folds and runs [unit]';
COMMENT ON COLUMN v_leaderboard.n_holdout IS 'crystals of the holdout';
COMMENT ON COLUMN v_leaderboard.holdout_r2 IS 'R^2 of the refit on the holdout, mean over runs';
COMMENT ON COLUMN v_leaderboard.holdout_r2_sd IS 'its standard deviation over runs; null for one run';
COMMENT ON COLUMN v_leaderboard.holdout_rmse IS 'root mean square error of the refit on the holdout, mean over runs [unit]';
COMMENT ON COLUMN v_leaderboard.holdout_rmse_sd IS 'its standard deviation over runs [unit]; null for one run';
COMMENT ON COLUMN v_leaderboard.cv_coverage IS
    'share of the cross-validated crystals inside their 90 % interval, computed from the residuals of the other folds; mean over runs';
COMMENT ON COLUMN v_leaderboard.holdout_coverage IS
    'share of the holdout inside its 90 % interval, mean over runs; `ecdreg models coverage` gives its binomial interval';
COMMENT ON COLUMN v_leaderboard.trained_on IS
    'training data of a reference model, which may contain the crystals that it is scored on; null for models trained on the split';
COMMENT ON COLUMN v_leaderboard.config_sha256 IS 'checksum of the configuration without its seed';
