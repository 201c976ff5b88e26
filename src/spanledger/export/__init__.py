"""The way out: `formats/` say how a receiver spells a record, `sinks/` how it gets there."""
