-- Version 6: how it is known whose a call is.
ALTER TABLE usage_records ADD COLUMN attribution_source TEXT
