"""How records get to a receiver."""
