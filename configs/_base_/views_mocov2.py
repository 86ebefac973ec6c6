"""MoCo v2's two views. SimSiam, UniGrad, DenseCL, DenseSiam and RegionCL use them too."""

views = [
    dict(
        size=224,
        scale=(0.2, 1.0),
        hflip=0.5,
        repeat=2,
        photometric=[
            dict(type="ColorJitter", brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, p=0.8),
            dict(type="Grayscale", p=0.2),
            dict(type="GaussianBlur", sigma=(0.1, 2.0), p=0.5),
        ],
    )
]
