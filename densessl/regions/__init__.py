"""Regions, which are class-agnostic boxes of images: their generators, selections and store."""

from densessl.regions import generators, select
from densessl.regions.fast import DiverseSelectiveSearch, FastSelectiveSearch
from densessl.regions.proposals import Proposals
from densessl.regions.source import GeneratedRegions, RegionSource
from densessl.regions.store import RegionStore
from densessl.regions.store_format import StoreError, write_store

__all__ = [
    "DiverseSelectiveSearch",
    "FastSelectiveSearch",
    "GeneratedRegions",
    "Proposals",
    "RegionSource",
    "RegionStore",
    "StoreError",
    "generators",
    "select",
    "write_store",
]
