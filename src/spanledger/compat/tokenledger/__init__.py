"""TokenLedger's names."""
