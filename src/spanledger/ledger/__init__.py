"""The usage ledger: one row per call, and the questions asked of it."""
