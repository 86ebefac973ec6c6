"""Shared by detectron2's protocols besides data and schedule: weights from a file; trained BN, synchronised over all
processes, with statistics estimated from 200 batches before a test; SGD for 16 images a step."""

custom_imports = dict(imports=["densessl.compat", "densessl.engine", "densessl.finetune"])
custom_hooks = [
    dict(type="densessl.LoadBackboneHook", checkpoint=None),
    dict(type="densessl.PreciseBNHook", batches=200),
]
trained_sync_bn = dict(type="SyncBN", requires_grad=True)  # MMEngine turns it into plain BN with one process

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="SGD", lr=0.02, momentum=0.9, weight_decay=1e-4),
    paramwise_cfg=dict(norm_decay_mult=0.0),
)
auto_scale_lr = dict(enable=False, base_batch_size=16)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
