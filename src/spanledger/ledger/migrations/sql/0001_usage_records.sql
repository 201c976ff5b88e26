-- The ledger: usage records, adjustments of their cost, what was pruned, and the views of both.
-- Generated from versions/v0001_usage_records.py by docs/generate.py.

BEGIN;

CREATE TABLE spanledger_schema (
    version_num VARCHAR(32) NOT NULL,
    CONSTRAINT spanledger_schema_pkc PRIMARY KEY (version_num)
);

-- Running upgrade  -> 0001

CREATE TABLE usage_records (
    record_id TEXT NOT NULL,
    started_at TIMESTAMP WITH TIME ZONE NOT NULL,
    source TEXT NOT NULL,
    operation TEXT NOT NULL,
    provider TEXT NOT NULL,
    usage_status TEXT NOT NULL,
    cost_source TEXT NOT NULL,
    cost_status TEXT NOT NULL,
    status TEXT NOT NULL,
    stream BOOLEAN NOT NULL,
    weight BIGINT NOT NULL,
    trace_id TEXT,
    span_id TEXT,
    parent_span_id TEXT,
    response_id TEXT,
    request_model TEXT,
    response_model TEXT,
    server_address TEXT,
    service_tier TEXT,
    conversation_id TEXT,
    currency TEXT,
    price_basis TEXT,
    user_id TEXT,
    session_id TEXT,
    organization_id TEXT,
    feature TEXT,
    team TEXT,
    project TEXT,
    cost_center TEXT,
    message_id TEXT,
    error_type TEXT,
    service_name TEXT,
    service_version TEXT,
    environment TEXT,
    merged_by TEXT,
    usage_shape TEXT,
    attribution_source TEXT,
    duration_ms BIGINT,
    time_to_first_chunk_ms BIGINT,
    attempts BIGINT,
    input_tokens BIGINT,
    output_tokens BIGINT,
    cache_read_tokens BIGINT,
    cache_write_tokens BIGINT,
    cache_write_long_tokens BIGINT,
    reasoning_tokens BIGINT,
    input_audio_tokens BIGINT,
    output_audio_tokens BIGINT,
    input_image_tokens BIGINT,
    output_image_tokens BIGINT,
    web_searches BIGINT,
    cost_pusd BIGINT,
    local_cost_pusd BIGINT,
    claimed_cost_pusd BIGINT,
    finish_reasons JSONB,
    other_usage JSONB,
    cost_breakdown JSONB,
    price_multipliers JSONB,
    price_context JSONB,
    metadata JSONB,
    raw_usage JSONB,
    told_by JSONB,
    clock_suspect BOOLEAN,
    recorded_at TIMESTAMP WITH TIME ZONE NOT NULL,
    PRIMARY KEY (record_id)
);

CREATE INDEX usage_records_started_at ON usage_records (started_at);

CREATE INDEX usage_records_user_id ON usage_records (user_id, started_at) WHERE user_id IS NOT NULL;

CREATE INDEX usage_records_session_id ON usage_records (session_id, started_at) WHERE session_id IS NOT NULL;

CREATE INDEX usage_records_organization_id ON usage_records (organization_id, started_at) WHERE organization_id IS NOT NULL;

CREATE INDEX usage_records_feature ON usage_records (feature, started_at) WHERE feature IS NOT NULL;

CREATE INDEX usage_records_team ON usage_records (team, started_at) WHERE team IS NOT NULL;

CREATE INDEX usage_records_project ON usage_records (project, started_at) WHERE project IS NOT NULL;

CREATE INDEX usage_records_cost_center ON usage_records (cost_center, started_at) WHERE cost_center IS NOT NULL;

CREATE TABLE cost_adjustments (
    record_id TEXT NOT NULL,
    number INTEGER NOT NULL,
    adjusted_at TIMESTAMP WITH TIME ZONE NOT NULL,
    old_cost_pusd BIGINT,
    old_cost_status TEXT NOT NULL,
    old_price_basis TEXT,
    cost_pusd BIGINT,
    cost_breakdown JSONB,
    cost_source TEXT NOT NULL,
    cost_status TEXT NOT NULL,
    price_basis TEXT,
    price_multipliers JSONB,
    PRIMARY KEY (record_id, number)
);

CREATE TABLE pruned_days (
    day TEXT NOT NULL,
    reason TEXT NOT NULL,
    records BIGINT NOT NULL,
    cost_usd TEXT NOT NULL,
    pruned_at TIMESTAMP WITH TIME ZONE NOT NULL
);

CREATE INDEX usage_records_totals ON usage_records (started_at) INCLUDE (
  provider, response_model, request_model, weight, cost_status, input_tokens, output_tokens, cost_pusd,
  user_id, session_id, organization_id, feature, team, project, cost_center
);

ALTER TABLE usage_records SET (
  autovacuum_vacuum_insert_scale_factor = 0.005, autovacuum_vacuum_scale_factor = 0.02
);

CREATE VIEW current_costs AS
SELECT
  u.*,
  CASE WHEN a.record_id IS NULL THEN u.cost_pusd ELSE a.cost_pusd END AS current_cost_pusd,
  CASE WHEN a.record_id IS NULL THEN u.cost_breakdown ELSE a.cost_breakdown END AS current_cost_breakdown,
  coalesce(a.cost_status, u.cost_status) AS current_cost_status,
  coalesce(a.cost_source, u.cost_source) AS current_cost_source,
  CASE WHEN a.record_id IS NULL THEN u.price_basis ELSE a.price_basis END AS current_price_basis,
  a.adjusted_at AS adjusted_at
FROM usage_records AS u
LEFT JOIN (SELECT DISTINCT ON (record_id) * FROM cost_adjustments ORDER BY record_id, number DESC) AS a
  ON a.record_id = u.record_id;

DO $$ BEGIN
IF to_regclass('token_ledger_events') IS NULL THEN
CREATE VIEW token_ledger_events AS
SELECT
  record_id AS event_id,
  trace_id,
  span_id,
  parent_span_id,
  started_at AS "timestamp",
  duration_ms::double precision AS duration_ms,
  provider,
  coalesce(response_model, request_model, '') AS model,
  coalesce(input_tokens, 0) * weight AS input_tokens,
  coalesce(output_tokens, 0) * weight AS output_tokens,
  (coalesce(input_tokens, 0) + coalesce(output_tokens, 0)) * weight AS total_tokens,
  coalesce(cache_read_tokens, 0) * weight AS cached_tokens,
  round(current_cost_pusd::numeric * weight / 1000000000000, 12) AS cost_usd,
  server_address AS endpoint,
  CASE WHEN operation = 'chat' AND stream THEN 'chat_stream'
       WHEN operation = 'embeddings' THEN 'embedding'
       ELSE operation END AS request_type,
  user_id,
  session_id,
  organization_id,
  service_name AS app_name,
  environment,
  status,
  error_type,
  NULL::text AS error_message,
  metadata,
  NULL::text AS request_preview,
  NULL::text AS response_preview,
  feature,
  metadata ->> 'page' AS page,
  metadata ->> 'component' AS component,
  team,
  project,
  cost_center,
  metadata AS metadata_extra
FROM current_costs;
END IF;
END $$;

DO $$ BEGIN
IF to_regclass('token_ledger_daily_costs') IS NULL AND (SELECT relkind FROM pg_class WHERE oid = to_regclass('token_ledger_events')) = 'v' THEN
CREATE VIEW token_ledger_daily_costs AS
SELECT
  ("timestamp" AT TIME ZONE 'UTC')::date AS date,
  provider,
  model,
  count(*) AS request_count,
  sum(input_tokens) AS total_input_tokens,
  sum(output_tokens) AS total_output_tokens,
  sum(total_tokens) AS total_tokens,
  sum(cost_usd) AS total_cost,
  avg(duration_ms) AS avg_latency_ms
FROM token_ledger_events
GROUP BY 1, 2, 3;
END IF;
END $$;

DO $$ BEGIN
IF to_regclass('token_ledger_user_costs') IS NULL AND (SELECT relkind FROM pg_class WHERE oid = to_regclass('token_ledger_events')) = 'v' THEN
CREATE VIEW token_ledger_user_costs AS
SELECT
  coalesce(user_id, 'anonymous') AS user_id,
  count(*) AS request_count,
  sum(total_tokens) AS total_tokens,
  sum(cost_usd) AS total_cost,
  min("timestamp") AS first_request,
  max("timestamp") AS last_request
FROM token_ledger_events
GROUP BY 1;
END IF;
END $$;

DO $$ BEGIN
IF to_regclass('token_ledger_team_costs') IS NULL AND (SELECT relkind FROM pg_class WHERE oid = to_regclass('token_ledger_events')) = 'v' THEN
CREATE VIEW token_ledger_team_costs AS
SELECT
  coalesce(team, 'unassigned') AS team,
  count(*) AS request_count,
  sum(total_tokens) AS total_tokens,
  sum(cost_usd) AS total_cost,
  min("timestamp") AS first_request,
  max("timestamp") AS last_request
FROM token_ledger_events
GROUP BY 1;
END IF;
END $$;

DO $$ BEGIN
IF to_regclass('token_ledger_cost_center_costs') IS NULL AND (SELECT relkind FROM pg_class WHERE oid = to_regclass('token_ledger_events')) = 'v' THEN
CREATE VIEW token_ledger_cost_center_costs AS
SELECT
  coalesce(cost_center, 'unassigned') AS cost_center,
  count(*) AS request_count,
  sum(total_tokens) AS total_tokens,
  sum(cost_usd) AS total_cost,
  min("timestamp") AS first_request,
  max("timestamp") AS last_request
FROM token_ledger_events
GROUP BY 1;
END IF;
END $$;

INSERT INTO spanledger_schema (version_num) VALUES ('0001') RETURNING spanledger_schema.version_num;

COMMIT;
