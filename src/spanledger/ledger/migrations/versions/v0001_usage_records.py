"""The ledger: usage records, adjustments of their cost, what was pruned, and the views of both."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None

TEXTS = (
    "trace_id", "span_id", "parent_span_id", "response_id", "request_model", "response_model", "server_address",
    "service_tier", "conversation_id", "currency", "price_basis", "user_id", "session_id", "organization_id", "feature",
    "team", "project", "cost_center", "message_id", "error_type", "service_name", "service_version", "environment",
    "merged_by", "usage_shape", "attribution_source",
)  # fmt: skip
NUMBERS = (
    "duration_ms", "time_to_first_chunk_ms", "attempts", "input_tokens", "output_tokens", "cache_read_tokens",
    "cache_write_tokens", "cache_write_long_tokens", "reasoning_tokens", "input_audio_tokens", "output_audio_tokens",
    "input_image_tokens", "output_image_tokens", "web_searches", "cost_pusd", "local_cost_pusd", "claimed_cost_pusd",
)  # fmt: skip
DOCUMENTS = (
    "finish_reasons", "other_usage", "cost_breakdown", "price_multipliers", "price_context", "metadata", "raw_usage",
    "told_by",
)  # fmt: skip
STATES = ("source", "operation", "provider", "usage_status", "cost_source", "cost_status", "status")
ATTRIBUTION = ("user_id", "session_id", "organization_id", "feature", "team", "project", "cost_center")


def upgrade() -> None:
    """Make everything. A table of somebody else's that has the name of a view stays, and the view is left out."""
    op.create_table(
        "usage_records",
        sa.Column("record_id", sa.Text, primary_key=True),
        sa.Column("started_at", sa.TIMESTAMP(timezone=True), nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in STATES),
        sa.Column("stream", sa.Boolean, nullable=False),
        sa.Column("weight", sa.BigInteger, nullable=False),
        *(sa.Column(name, sa.Text) for name in TEXTS),
        *(sa.Column(name, sa.BigInteger) for name in NUMBERS),
        *(sa.Column(name, JSONB) for name in DOCUMENTS),
        sa.Column("clock_suspect", sa.Boolean),
        sa.Column("recorded_at", sa.TIMESTAMP(timezone=True), nullable=False),
    )
    op.create_index("usage_records_started_at", "usage_records", ["started_at"])
    for name in ATTRIBUTION:
        op.create_index(
            f"usage_records_{name}",
            "usage_records",
            [name, "started_at"],
            postgresql_where=sa.text(f"{name} IS NOT NULL"),
        )
    op.create_table(
        "cost_adjustments",
        sa.Column("record_id", sa.Text, primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("adjusted_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("old_cost_pusd", sa.BigInteger),
        sa.Column("old_cost_status", sa.Text, nullable=False),
        sa.Column("old_price_basis", sa.Text),
        sa.Column("cost_pusd", sa.BigInteger),
        sa.Column("cost_breakdown", JSONB),
        sa.Column("cost_source", sa.Text, nullable=False),
        sa.Column("cost_status", sa.Text, nullable=False),
        sa.Column("price_basis", sa.Text),
        sa.Column("price_multipliers", JSONB),
    )
    op.create_table(
        "pruned_days",
        sa.Column("day", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("records", sa.BigInteger, nullable=False),
        sa.Column("cost_usd", sa.Text, nullable=False),
        sa.Column("pruned_at", sa.TIMESTAMP(timezone=True), nullable=False),
    )
    op.execute(TOTALS)
    op.execute(OFTEN)
    op.execute(CURRENT_COSTS)
    for name, body in VIEWS:
        op.execute(where_free(name, body))


def downgrade() -> None:
    """Take everything away, the records included."""
    for name, _ in reversed(VIEWS):
        op.execute(
            f"DO $$ BEGIN IF (SELECT relkind FROM pg_class WHERE oid = to_regclass('{name}')) = 'v' THEN"
            f" DROP VIEW {name}; END IF; END $$"
        )
    op.execute("DROP VIEW current_costs")
    for name in ("pruned_days", "cost_adjustments", "usage_records"):
        op.drop_table(name)


def where_free(name: str, body: str) -> str:
    """Make a view where nothing has its name, and what it reads is ours."""
    events = VIEWS[0][0]
    reads = "" if name == events else f" AND (SELECT relkind FROM pg_class WHERE oid = to_regclass('{events}')) = 'v'"
    return f"DO $$ BEGIN\nIF to_regclass('{name}') IS NULL{reads} THEN\nCREATE VIEW {name} AS\n{body};\nEND IF;\nEND $$"


TOTALS = """CREATE INDEX usage_records_totals ON usage_records (started_at) INCLUDE (
  provider, response_model, request_model, weight, cost_status, input_tokens, output_tokens, cost_pusd,
  user_id, session_id, organization_id, feature, team, project, cost_center
)"""
"""What is asked most is answered from it alone: the totals of a period."""
OFTEN = """ALTER TABLE usage_records SET (
  autovacuum_vacuum_insert_scale_factor = 0.005, autovacuum_vacuum_scale_factor = 0.02
)"""
"""Only of pages that were vacuumed is it known that they need no look."""

CURRENT_COSTS = """CREATE VIEW current_costs AS
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
  ON a.record_id = u.record_id"""

_TOTALS = """  count(*) AS request_count,
  sum(total_tokens) AS total_tokens,
  sum(cost_usd) AS total_cost,
  min("timestamp") AS first_request,
  max("timestamp") AS last_request
FROM token_ledger_events
GROUP BY 1"""

VIEWS = (
    (
        "token_ledger_events",
        """SELECT
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
FROM current_costs""",
    ),
    (
        "token_ledger_daily_costs",
        """SELECT
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
GROUP BY 1, 2, 3""",
    ),
    ("token_ledger_user_costs", f"SELECT\n  coalesce(user_id, 'anonymous') AS user_id,\n{_TOTALS}"),
    ("token_ledger_team_costs", f"SELECT\n  coalesce(team, 'unassigned') AS team,\n{_TOTALS}"),
    ("token_ledger_cost_center_costs", f"SELECT\n  coalesce(cost_center, 'unassigned') AS cost_center,\n{_TOTALS}"),
)
"""The seed's names, in the order in which they need each other."""
