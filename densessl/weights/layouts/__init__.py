"""Whose file it is, and which of its names are the backbone's."""
