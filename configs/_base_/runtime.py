"""Shared by every pretraining config: hooks, logs, the model's wrapper, the demo. Methods override what differs."""

default_scope = "densessl"
runner_type = "densessl.DenseRunner"

# One seed determines data order, crops, photometric draws and dropout: the same seed gives the same run.
randomness = dict(seed=0)
env_cfg = dict(cudnn_benchmark=True, mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0))
# The official codes keep BN statistics per process; with synchronised BN they are equal anyway.
model_wrapper_cfg = dict(type="MMDistributedDataParallel", broadcast_buffers=False)

train_dataloader = dict(
    num_workers="auto",  # cores of the machine divided by its processes
    drop_last=True,
    sampler=dict(type="KeySampler"),
    collate_fn=dict(type="densessl.collate_views"),
)

# Hooks of equal priority run in this order.
default_hooks = dict(
    runtime_info=dict(type="AsyncRuntimeInfoHook"),
    timer=None,  # ProgressHook measures
    sampler_seed=dict(type="DistSamplerSeedHook"),
    logger=dict(type="ProgressHook", interval=50),
    param_scheduler=None,  # LRHook sets the learning rate
    checkpoint=dict(type="CheckpointHook", interval=10, max_keep_ckpts=3, save_last=True),
    init=dict(type="InitHook", checkpoint=None),  # set by `--init FILE`
    bad_images=dict(type="BadImagesHook"),  # `--bad-images 1%`: how many images may be unreadable
    step=dict(type="StepHook"),
    # Each recipe adds the shape of its schedule, and `reference_batch`, the images per step that the rate is meant for.
    lr=dict(type="LRHook"),
    export=dict(type="ExportHook"),
)
visualizer = dict(type="Visualizer", vis_backends=[dict(type="JsonlVisBackend"), dict(type="TensorboardVisBackend")])
log_processor = dict(by_epoch=True)

# What `--demo` changes: data, batch size and schedule; never the model or its objectives.
demo = {
    "train_cfg.max_epochs": 2,
    "train_dataloader.batch_size": 6,
    "train_dataloader.num_workers": 1,
    "default_hooks.logger.interval": 1,
    "default_hooks.checkpoint.interval": 1,
}
