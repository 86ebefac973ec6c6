"""BYOL's two views, which differ in blur and solarisation. LC-loss uses them too, and SIM, with the first one masked."""

jitter = dict(type="ColorJitter", brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, p=0.8)
gray = dict(type="Grayscale", p=0.2)
crop = dict(size=224, scale=(0.08, 1.0), hflip=0.5, interpolation="bicubic")
views = [
    dict(crop, photometric=[jitter, gray, dict(type="GaussianBlur", sigma=(0.1, 2.0), p=1.0)]),
    dict(
        crop,
        photometric=[
            jitter,
            gray,
            dict(type="GaussianBlur", sigma=(0.1, 2.0), p=0.1),
            dict(type="Solarize", threshold=128, p=0.2),
        ],
    ),
]
