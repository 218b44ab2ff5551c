"""Two sets of captions of the same images: by how much one is better, how sure that is, and where they differ."""

from imgcap.comparison.bootstrap import Difference, differences
from imgcap.comparison.page import write_page
from imgcap.comparison.sides import Comparison, compare, load_sides

__all__ = ["Comparison", "Difference", "compare", "differences", "load_sides", "write_page"]
