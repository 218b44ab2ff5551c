"""Files behind an address or on the hub: fetched whole, checked, and kept on this machine while there is room."""

from imgcap.remote.cache import Cache, cache_root
from imgcap.remote.fetch import Unreachable, fetch, is_address, read
from imgcap.remote.hub import check_name, download, is_hub_name, push

__all__ = [
    "Cache",
    "Unreachable",
    "cache_root",
    "check_name",
    "download",
    "fetch",
    "is_address",
    "is_hub_name",
    "push",
    "read",
]
