"""The name of old of :mod:`densessl.finetune.categories`, for ``custom_imports`` of configs already written."""

from densessl.finetune.categories import NamedCocoDataset, OneClassCocoDataset

__all__ = ["NamedCocoDataset", "OneClassCocoDataset"]
