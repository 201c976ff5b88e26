"""Thin faces of the systems that spanledger replaces: their own code runs with only its import lines changed."""
