"""One table per way to spell a model call on a span."""
