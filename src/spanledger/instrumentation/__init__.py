"""Door 1: watch the calls an SDK makes. `providers/` are tables; everything else is the engine they share."""
