"""What a run shows of itself: numbers and curves."""
