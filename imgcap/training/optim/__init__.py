"""Optimisation: parameter groups, schedules of learning rate and teacher forcing, the weights' average."""
