"""PixPro, LC-loss and MoCo v2 on one ResNet-18 at 160 pixels: a combination that nobody has published, to show that
objectives compose. They share one pair of views, one backbone pass per view and branch, and one target; each objective
has its own heads.

    python tools/train.py configs/mix/pixpro_lcloss_mocov2_r18.py --data-root photos/

Weights balance how far each loss can fall: PixPro goes from 0 to -4, LC-loss starts near ln 49 = 3.9, and MoCo near
ln 4097 = 8.3, so the weights are 1, 1 and 0.5. Nothing is tuned.
"""

_base_ = ["../_base_/runtime.py", "../_base_/views_byol.py"]

views = [dict(view, size=160) for view in _base_.views]  # 5x5 cells

model = dict(
    type="TwoBranch",
    online=dict(
        backbone=dict(type="ResNet", depth=18, out_indices=(3,), norm_cfg=dict(type="SyncBN"), zero_gamma=True)
    ),
    # PixPro's momentum. With few steps per epoch, the target should move faster than with MoCo's 0.999 anyway.
    target=dict(kind="ema", momentum=dict(type="cosine_momentum", base=0.99, total="images")),
    objectives=[
        dict(type="PixPro", weight=1.0, hidden=1024, dim=128),
        dict(type="LCLoss", weight=1.0, hidden=1024, dim=128, correspondence=dict(type="RandomPoints", count=49)),
        # A queue of thousands of keys, not tens of thousands: in a longer one, few images would meet their own keys.
        dict(type="MoCo", weight=0.5, hidden=512, dim=128, length=4096, temperature=0.2),
    ],
    data_preprocessor=dict(type="ViewPreprocessor"),
)

# 1 process x 64 images = 64 images a step; 3,000 photos give 46 steps an epoch.
train_dataloader = dict(batch_size=64, dataset=dict(type="UnlabelledImages", source="data/photos"))
train_cfg = dict(by_epoch=True, max_epochs=100)
optim_wrapper = dict(
    constructor="DenseOptimWrapperConstructor",
    precision="auto",
    optimizer=dict(type="LARS", lr=1.0, momentum=0.9, weight_decay=1e-5),
    paramwise_cfg=dict(exclude=("1d",)),
)
# As in `pixpro_r18.py`.
default_hooks = dict(
    lr=dict(
        schedule=dict(type="warmup_cosine", warmup_epochs=1, start_factor=0.01, final=1e-6),
        reference_batch=64,
    )
)
