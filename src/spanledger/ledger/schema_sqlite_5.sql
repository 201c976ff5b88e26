-- Version 5: whether a clock can't have been right, and what was pruned.
ALTER TABLE usage_records ADD COLUMN clock_suspect INTEGER
--;
CREATE TABLE pruned_days (
  day TEXT NOT NULL,
  reason TEXT NOT NULL,
  records INTEGER NOT NULL,
  cost_usd TEXT NOT NULL,
  pruned_at TEXT NOT NULL
)
