-- Version 1 of the SQLite ledger. Statements are separated by a line that holds only `--;`.
-- Later versions add statements in a file of their own; this one never changes.
CREATE TABLE usage_records (
  record_id TEXT PRIMARY KEY NOT NULL,
  trace_id TEXT,
  span_id TEXT,
  parent_span_id TEXT,
  response_id TEXT,
  source TEXT NOT NULL,
  started_at TEXT NOT NULL,
  duration_ms INTEGER,
  time_to_first_chunk_ms INTEGER,
  operation TEXT NOT NULL,
  provider TEXT NOT NULL,
  request_model TEXT,
  response_model TEXT,
  server_address TEXT,
  stream INTEGER NOT NULL,
  finish_reasons TEXT,
  service_tier TEXT,
  conversation_id TEXT,
  input_tokens INTEGER,
  output_tokens INTEGER,
  cache_read_tokens INTEGER,
  cache_write_tokens INTEGER,
  cache_write_long_tokens INTEGER,
  reasoning_tokens INTEGER,
  input_audio_tokens INTEGER,
  output_audio_tokens INTEGER,
  input_image_tokens INTEGER,
  output_image_tokens INTEGER,
  web_searches INTEGER,
  other_usage TEXT,
  usage_status TEXT NOT NULL,
  cost_pusd INTEGER,
  cost_breakdown TEXT,
  currency TEXT,
  cost_source TEXT NOT NULL,
  cost_status TEXT NOT NULL,
  price_basis TEXT,
  user_id TEXT,
  session_id TEXT,
  organization_id TEXT,
  feature TEXT,
  team TEXT,
  project TEXT,
  cost_center TEXT,
  message_id TEXT,
  metadata TEXT,
  status TEXT NOT NULL,
  error_type TEXT,
  service_name TEXT,
  service_version TEXT,
  environment TEXT,
  weight INTEGER NOT NULL,
  raw_usage TEXT,
  recorded_at TEXT NOT NULL
) WITHOUT ROWID
--;
CREATE INDEX usage_records_started_at ON usage_records (started_at)
--;
CREATE VIEW token_ledger_events AS
SELECT
  record_id AS event_id,
  trace_id,
  span_id,
  parent_span_id,
  started_at AS timestamp,
  duration_ms,
  provider,
  coalesce(response_model, request_model, '') AS model,
  coalesce(input_tokens, 0) * weight AS input_tokens,
  coalesce(output_tokens, 0) * weight AS output_tokens,
  (coalesce(input_tokens, 0) + coalesce(output_tokens, 0)) * weight AS total_tokens,
  coalesce(cache_read_tokens, 0) * weight AS cached_tokens,
  cost_pusd * weight / 1e12 AS cost_usd,
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
  NULL AS error_message,
  metadata,
  NULL AS request_preview,
  NULL AS response_preview,
  feature,
  json_extract(metadata, '$.page') AS page,
  json_extract(metadata, '$.component') AS component,
  team,
  project,
  cost_center,
  metadata AS metadata_extra
FROM usage_records
--;
CREATE VIEW token_ledger_daily_costs AS
SELECT
  date(timestamp) AS date,
  provider,
  model,
  count(*) AS request_count,
  sum(input_tokens) AS total_input_tokens,
  sum(output_tokens) AS total_output_tokens,
  sum(total_tokens) AS total_tokens,
  sum(cost_usd) AS total_cost,
  avg(duration_ms) AS avg_latency_ms
FROM token_ledger_events
GROUP BY 1, 2, 3
--;
CREATE VIEW token_ledger_user_costs AS
SELECT
  coalesce(user_id, 'anonymous') AS user_id,
  count(*) AS request_count,
  sum(total_tokens) AS total_tokens,
  sum(cost_usd) AS total_cost,
  min(timestamp) AS first_request,
  max(timestamp) AS last_request
FROM token_ledger_events
GROUP BY 1
--;
CREATE VIEW token_ledger_team_costs AS
SELECT
  coalesce(team, 'unassigned') AS team,
  count(*) AS request_count,
  sum(total_tokens) AS total_tokens,
  sum(cost_usd) AS total_cost,
  min(timestamp) AS first_request,
  max(timestamp) AS last_request
FROM token_ledger_events
GROUP BY 1
--;
CREATE VIEW token_ledger_cost_center_costs AS
SELECT
  coalesce(cost_center, 'unassigned') AS cost_center,
  count(*) AS request_count,
  sum(total_tokens) AS total_tokens,
  sum(cost_usd) AS total_cost,
  min(timestamp) AS first_request,
  max(timestamp) AS last_request
FROM token_ledger_events
GROUP BY 1
