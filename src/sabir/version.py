"""The version of this library; the packaging reads it here."""

__version__ = "0.1.0"
