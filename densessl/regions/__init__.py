"""Regions: class-agnostic boxes of images, where they come from, and the store that keeps them."""

from densessl.regions import generators, select
from densessl.regions.proposals import Proposals
from densessl.regions.source import GeneratedRegions, RegionSource

__all__ = ["GeneratedRegions", "Proposals", "RegionSource", "generators", "select"]
