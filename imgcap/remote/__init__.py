"""Files that lie behind an address: fetched whole, checked, and kept on this machine while there is room."""

from imgcap.remote.cache import Cache, cache_root
from imgcap.remote.fetch import Unreachable, fetch, is_address, read

__all__ = ["Cache", "Unreachable", "cache_root", "fetch", "is_address", "read"]
