"""The version, here alone: the package metadata is made from it, and no import has to read it back."""

__version__ = "0.1.0"
