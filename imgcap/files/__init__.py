"""Files behind an address or on the hub: fetched whole, checked, and kept on this machine while there is room."""
