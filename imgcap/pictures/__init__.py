"""Pictures: opened, made into upright RGB JPEGs, and drawn for people to look at."""
