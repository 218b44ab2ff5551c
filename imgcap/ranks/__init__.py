"""Ranks, devices, collectives and the watchdog. All of it also works in a single process, where it is cheap."""
