CREATE VIEW v_ingest_runs AS
SELECT r.id AS run_id,
       r.source,
       r.source_release,
       r.status,
       r.started_at,
       extract(epoch FROM r.finished_at - r.started_at)::float8 AS seconds,
       count(o.outcome) AS crystals,
       count(*) FILTER (WHERE o.outcome = 'created') AS created,
       count(*) FILTER (WHERE o.outcome = 'updated') AS updated,
       count(*) FILTER (WHERE o.outcome = 'unchanged') AS unchanged,
       count(*) FILTER (WHERE o.outcome = 'partial') AS partial,
       count(*) FILTER (WHERE o.outcome = 'deferred') AS deferred,
       count(*) FILTER (WHERE o.outcome = 'rejected') AS rejected,
       r.code_version,
       r.parameters
FROM ingest_runs r
LEFT JOIN ingest_outcomes o ON o.run_id = r.id
GROUP BY r.id
ORDER BY r.id;

COMMENT ON VIEW v_ingest_runs IS 'calls of `ecdreg ingest`, with the number of crystals by outcome';
COMMENT ON COLUMN v_ingest_runs.run_id IS 'row of ingest_runs';
COMMENT ON COLUMN v_ingest_runs.source IS 'source that was read';
COMMENT ON COLUMN v_ingest_runs.source_release IS 'version of its data as the source states it';
COMMENT ON COLUMN v_ingest_runs.status IS 'running, finished, interrupted or failed';
COMMENT ON COLUMN v_ingest_runs.started_at IS 'time of the start';
COMMENT ON COLUMN v_ingest_runs.seconds IS 'duration [s]; null while it runs';
COMMENT ON COLUMN v_ingest_runs.crystals IS 'crystals with an outcome so far';
COMMENT ON COLUMN v_ingest_runs.created IS 'crystals that were added';
COMMENT ON COLUMN v_ingest_runs.updated IS 'crystals with a new revision';
COMMENT ON COLUMN v_ingest_runs.unchanged IS 'crystals equal to their current revision';
COMMENT ON COLUMN v_ingest_runs.partial IS 'crystals with a part that could not be used; ingest_outcomes has the reasons';
COMMENT ON COLUMN v_ingest_runs.deferred IS 'crystals to be tried again';
COMMENT ON COLUMN v_ingest_runs.rejected IS 'crystals that were refused';
COMMENT ON COLUMN v_ingest_runs.code_version IS 'version of ecdreg that ran';
COMMENT ON COLUMN v_ingest_runs.parameters IS 'options of the run';

-- 'unchanged' means that an earlier outcome is still valid; this view finds that outcome.
CREATE VIEW v_ingest_outcomes AS
SELECT DISTINCT ON (r.source, o.source_id)
       r.source,
       o.source_id,
       o.outcome,
       o.reason,
       o.run_id,
       o.recorded_at,
       o.input_sha256,
       o.revision_id
FROM ingest_outcomes o
JOIN ingest_runs r ON r.id = o.run_id
WHERE o.outcome <> 'unchanged'
ORDER BY r.source, o.source_id, o.run_id DESC;

COMMENT ON VIEW v_ingest_outcomes IS 'current outcome of each crystal of a source: the latest one other than ''unchanged''';
COMMENT ON COLUMN v_ingest_outcomes.source IS 'source of the crystal';
COMMENT ON COLUMN v_ingest_outcomes.source_id IS 'id of the crystal in its source';
COMMENT ON COLUMN v_ingest_outcomes.outcome IS 'created, updated, partial, deferred (to be tried again) or rejected';
COMMENT ON COLUMN v_ingest_outcomes.reason IS 'reason, where partial, deferred or rejected';
COMMENT ON COLUMN v_ingest_outcomes.run_id IS 'run with this outcome';
COMMENT ON COLUMN v_ingest_outcomes.recorded_at IS 'time of the outcome';
COMMENT ON COLUMN v_ingest_outcomes.input_sha256 IS 'of the inputs of the source at that time; null where it was not read';
COMMENT ON COLUMN v_ingest_outcomes.revision_id IS 'revision that was written; null where none was written';
