"""Readers of raw datasets: each module has a function `read(...) -> Source`, which the registry calls."""
