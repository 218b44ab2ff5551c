"""The commands of `imgcap`: arguments in, text out. Each is a module whose docstring is its help."""
