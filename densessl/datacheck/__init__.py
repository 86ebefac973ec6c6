"""``densessl data check``: read every image of a data set once, and report what training will make of it."""
