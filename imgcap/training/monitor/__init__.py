"""What a run shows of itself: numbers, curves, captioned sheets, attention and progress."""
