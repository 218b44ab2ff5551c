"""Generated scenes: their facts, their picture, true captions of them, and a check of any caption."""
