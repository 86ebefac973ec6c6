"""Whole detectors: their configs, files and official names."""
