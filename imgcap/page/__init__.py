"""The web page: drop a picture, see what one or several models say of it, and where each word looked."""

from imgcap.page.server import Limits, check_address, serve

__all__ = ["Limits", "check_address", "serve"]
