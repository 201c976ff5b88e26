"""How the providers' APIs spell usage, and what their counts mean. `shapes/` are tables; `shape.py` reads by them."""
