"""Caption decoders: `init` reads the picture, `step` decodes a token, `read` takes all that are known at once."""
