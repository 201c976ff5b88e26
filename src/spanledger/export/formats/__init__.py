"""One table per receiver: its column ← our field."""
