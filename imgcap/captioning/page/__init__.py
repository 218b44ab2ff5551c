"""The web page: drop a picture, see what one or several models say of it, and where each word looked."""
