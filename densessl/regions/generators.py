"""Generators of regions that look at an image's size only. Those that look at its pixels are modules of their own.

A generator is called with ((h, w, 3) uint8 RGB pixels, generator of random numbers) and returns
:class:`densessl.regions.Proposals`. Where it draws nothing it leaves the random numbers alone.
"""
