-- Version 4: who told of a call where several did, by what that was known, and what another teller says it cost.
ALTER TABLE usage_records ADD COLUMN told_by TEXT
--;
ALTER TABLE usage_records ADD COLUMN merged_by TEXT
--;
ALTER TABLE usage_records ADD COLUMN claimed_cost_pusd INTEGER
