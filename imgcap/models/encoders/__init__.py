"""Image encoders: from pixels to features of the grid cells, and the pretrained weights they begin with."""
