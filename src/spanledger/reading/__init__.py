"""Door 2: understand spans that somebody else made. `dialects/` are tables; the reader is the code they share."""
