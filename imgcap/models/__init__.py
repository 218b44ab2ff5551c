"""Image-captioning models: an image encoder, a caption decoder, and the two as one."""
