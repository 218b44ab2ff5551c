"""Readers of raw datasets. Each has one function `read(...) -> Source`."""
