"""Readers of raw datasets: each module has one function `read(...) -> Source`; the registry finds it by name."""
