"""Recognise which code wrote a checkpoint, and find the backbone in it."""
