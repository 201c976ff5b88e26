-- Version 2: what a price depended on, and adjustments. A row of usage_records keeps the cost it was recorded with; what
-- it is known to have cost since then stands in cost_adjustments, one row per repricing, the last one counts.
ALTER TABLE usage_records ADD COLUMN price_context TEXT
--;
ALTER TABLE usage_records ADD COLUMN price_multipliers TEXT
--;
ALTER TABLE usage_records ADD COLUMN local_cost_pusd INTEGER
--;
ALTER TABLE usage_records ADD COLUMN usage_shape TEXT
--;
CREATE TABLE cost_adjustments (
  record_id TEXT NOT NULL,
  number INTEGER NOT NULL,
  adjusted_at TEXT NOT NULL,
  old_cost_pusd INTEGER,
  old_cost_status TEXT NOT NULL,
  old_price_basis TEXT,
  cost_pusd INTEGER,
  cost_breakdown TEXT,
  cost_source TEXT NOT NULL,
  cost_status TEXT NOT NULL,
  price_basis TEXT,
  price_multipliers TEXT,
  PRIMARY KEY (record_id, number)
) WITHOUT ROWID
--;
CREATE VIEW current_costs AS
SELECT
  usage_records.*,
  CASE WHEN a.record_id IS NULL THEN usage_records.cost_pusd ELSE a.cost_pusd END AS current_cost_pusd,
  CASE WHEN a.record_id IS NULL THEN usage_records.cost_breakdown ELSE a.cost_breakdown END AS current_cost_breakdown,
  coalesce(a.cost_status, usage_records.cost_status) AS current_cost_status,
  coalesce(a.cost_source, usage_records.cost_source) AS current_cost_source,
  CASE WHEN a.record_id IS NULL THEN usage_records.price_basis ELSE a.price_basis END AS current_price_basis,
  a.adjusted_at AS adjusted_at
FROM usage_records
LEFT JOIN cost_adjustments AS a ON a.record_id = usage_records.record_id
  AND a.number = (SELECT max(number) FROM cost_adjustments AS b WHERE b.record_id = usage_records.record_id)
--;
DROP VIEW token_ledger_events
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
  current_cost_pusd * weight / 1e12 AS cost_usd,
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
FROM current_costs
