"""Measurements of the shop, each a ratio against something in the same run: `make bench`."""
