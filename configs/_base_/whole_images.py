"""Shared by all pretraining of whole detectors: patches, optimiser, precision."""

custom_imports = dict(imports=["densessl.detectors"])

# Photometric operations of patches, which are not flipped.
photometric = [
    dict(type="ColorJitter", brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, p=0.8),
    dict(type="Grayscale", p=0.2),
    dict(type="GaussianBlur", sigma=(0.1, 2.0), p=0.5),
]
model = dict(type="DetectorPretraining", data_preprocessor=dict(type="RegionPreprocessor"))
optim_wrapper = dict(
    constructor="DenseOptimWrapperConstructor",
    precision="fp32",  # as in the official codes
    optimizer=dict(type="AdamW", lr=1e-4, weight_decay=1e-4),
    paramwise_cfg=dict(exclude=()),
    clip_grad=dict(max_norm=0.1),
)
