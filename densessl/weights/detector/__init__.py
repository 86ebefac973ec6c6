"""Whole detectors: configs, files and official tensor names."""
