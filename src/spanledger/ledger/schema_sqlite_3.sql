-- Version 3: how many HTTP requests the SDK made for a call, where it tells.
ALTER TABLE usage_records ADD COLUMN attempts INTEGER
