"""Pictures: opened, made upright RGB JPEGs, and drawn for people to look at."""
