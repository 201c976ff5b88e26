"""One module per version of the schema. A released one never changes."""
