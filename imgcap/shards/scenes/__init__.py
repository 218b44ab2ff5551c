"""Generated scenes: what is on a picture, the picture, true captions of it, and a check of any caption."""
