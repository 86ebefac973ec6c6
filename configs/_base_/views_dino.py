"""DINO's multi-crop with SCFS's scales: two global crops, which differ in blur and solarisation, and eight local ones.

DINO's own command for ResNet-50 has scales (0.14, 1) and (0.05, 0.14).
"""

jitter = dict(type="ColorJitter", brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, p=0.8)
gray = dict(type="Grayscale", p=0.2)
whole = dict(size=224, scale=(0.25, 1.0), hflip=0.5, interpolation="bicubic")
views = [
    dict(whole, photometric=[jitter, gray, dict(type="GaussianBlur", sigma=(0.1, 2.0), p=1.0)]),
    dict(
        whole,
        photometric=[
            jitter,
            gray,
            dict(type="GaussianBlur", sigma=(0.1, 2.0), p=0.1),
            dict(type="Solarize", threshold=128, p=0.2),
        ],
    ),
    dict(
        size=96,
        scale=(0.05, 0.25),
        hflip=0.5,
        interpolation="bicubic",
        repeat=8,
        photometric=[jitter, gray, dict(type="GaussianBlur", sigma=(0.1, 2.0), p=0.5)],
    ),
]
