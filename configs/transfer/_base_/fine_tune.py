"""What detectron2's protocols share beside data and schedule: weights from a file, and BN that learns, over all processes,
and whose statistics are taken anew from 200 batches before a test."""

custom_imports = dict(imports=["densessl.compat", "densessl.engine", "densessl.transfer"])
custom_hooks = [
    dict(type="densessl.LoadBackboneHook", checkpoint=None),
    dict(type="densessl.PreciseBNHook", batches=200),
]
sync_bn = dict(type="SyncBN", requires_grad=True)  # MMEngine makes it plain BN where there is one process
