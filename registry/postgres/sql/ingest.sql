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

COMMENT ON VIEW v_ingest_runs IS 'every call of `ecdreg ingest`, and what became of the crystals it looked at';
COMMENT ON COLUMN v_ingest_runs.run_id IS 'row of ingest_runs';
COMMENT ON COLUMN v_ingest_runs.source IS 'source that was read';
COMMENT ON COLUMN v_ingest_runs.source_release IS 'the source''s own version of its data';
COMMENT ON COLUMN v_ingest_runs.status IS 'running, finished, interrupted or failed';
COMMENT ON COLUMN v_ingest_runs.started_at IS 'when it started';
COMMENT ON COLUMN v_ingest_runs.seconds IS 'how long it took [s]; null while it runs';
COMMENT ON COLUMN v_ingest_runs.crystals IS 'crystals with an outcome so far';
COMMENT ON COLUMN v_ingest_runs.created IS 'crystals that are new';
COMMENT ON COLUMN v_ingest_runs.updated IS 'crystals that got a new revision';
COMMENT ON COLUMN v_ingest_runs.unchanged IS 'crystals that were as they are here';
COMMENT ON COLUMN v_ingest_runs.partial IS 'crystals of which a part could not be used; the reasons are in ingest_outcomes';
COMMENT ON COLUMN v_ingest_runs.deferred IS 'crystals worth another try';
COMMENT ON COLUMN v_ingest_runs.rejected IS 'crystals that were not taken';
COMMENT ON COLUMN v_ingest_runs.code_version IS 'version of ecdreg that ran';
COMMENT ON COLUMN v_ingest_runs.parameters IS 'options of the run';

-- 'unchanged' says that an earlier outcome stands; this view finds that one.
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

COMMENT ON VIEW v_ingest_outcomes IS 'what became of each crystal of a source: its latest outcome other than ''unchanged''';
COMMENT ON COLUMN v_ingest_outcomes.source IS 'source of the crystal';
COMMENT ON COLUMN v_ingest_outcomes.source_id IS 'id of the crystal in its source';
COMMENT ON COLUMN v_ingest_outcomes.outcome IS 'created, updated, partial, deferred (worth another try) or rejected';
COMMENT ON COLUMN v_ingest_outcomes.reason IS 'why partial, deferred or rejected';
COMMENT ON COLUMN v_ingest_outcomes.run_id IS 'run that decided it';
COMMENT ON COLUMN v_ingest_outcomes.recorded_at IS 'when it was decided';
COMMENT ON COLUMN v_ingest_outcomes.input_sha256 IS 'of what the source offered then; null where it was not read';
COMMENT ON COLUMN v_ingest_outcomes.revision_id IS 'revision that was written; null where none was';
