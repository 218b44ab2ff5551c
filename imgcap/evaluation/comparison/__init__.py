"""Two sets of captions of the same images: by how much one is better, how sure that is, and where they differ."""
