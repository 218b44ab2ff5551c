"""Arithmetic that several rooms share: products, dropout, and which dtype they run in."""
