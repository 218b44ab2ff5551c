"""Measurements of what the documentation claims, each beside a baseline that runs in turns with it."""

import time

STARTED = time.monotonic()  # before anything slow is imported
