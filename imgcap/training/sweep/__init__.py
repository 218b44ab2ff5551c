"""Sweeps: many short runs that differ in a few keys, what each scored, and which key mattered."""
