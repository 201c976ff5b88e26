-- Version 7: an index that answers for what is asked most, without the rows: the totals of a period, by provider and model.
CREATE INDEX usage_records_totals ON usage_records (
  provider, response_model, request_model, weight, cost_status, started_at, input_tokens, output_tokens, cost_pusd,
  user_id, session_id, organization_id, feature, team, project, cost_center
)
