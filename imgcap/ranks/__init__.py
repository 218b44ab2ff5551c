"""Ranks, devices, collectives and the watchdog. Every function also works in a single process, where it is cheap."""
