"""The command `spanledger`."""
