import densessl  # noqa: F401  (before any test module here imports mmcv.ops)
