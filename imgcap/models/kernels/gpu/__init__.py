"""The same arithmetic for a GPU: few launches, little memory, by Triton."""
