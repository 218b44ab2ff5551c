"""Measurements of what the documentation claims, each beside a baseline that runs in turns with it."""
