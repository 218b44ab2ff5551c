"""Training: the loop and the step, and what surrounds them."""
