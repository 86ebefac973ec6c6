"""SwAV's multi-crop: two large and six small crops, with double MoCo v2's colour distortion."""

photometric = [
    dict(type="ColorJitter", brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, p=0.8),
    dict(type="Grayscale", p=0.2),
    dict(type="GaussianBlur", sigma=(0.1, 2.0), p=0.5),
]
# In the recipe without small crops, the large ones have a scale of (0.08, 1).
views = [
    dict(size=224, scale=(0.14, 1.0), hflip=0.5, repeat=2, photometric=photometric),
    dict(size=96, scale=(0.05, 0.14), hflip=0.5, repeat=6, photometric=photometric),
]
