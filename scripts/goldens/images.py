"""Writes small image files of kinds that the Rust encoders cannot make, with Pillow's reading of each as PNG.

    python scripts/goldens/images.py     # needs numpy and pillow
"""

import pathlib

import numpy as np
from PIL import Image

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden" / "data"

y, x = np.mgrid[0:18, 0:26]
rgb = np.stack([x * 9, y * 13, 255 - x * 5 - y * 5], -1).astype(np.uint8)
picture = Image.fromarray(rgb)
big = picture.resize((104, 72), Image.Resampling.BICUBIC)

OUT.mkdir(parents=True, exist_ok=True)
files = {
    "cmyk.jpg": (picture.convert("CMYK"), {"quality": 95}),
    "progressive.jpg": (big, {"quality": 90, "progressive": True}),
    "grey.jpg": (big.convert("L"), {"quality": 90}),
    "palette.png": (picture.quantize(16), {}),
    "palette.gif": (picture.quantize(32), {"save_all": True, "append_images": [picture.quantize(4)]}),
    "lzw.tif": (picture, {"compression": "tiff_lzw"}),
    "lossy.webp": (big, {"quality": 80}),
}
for name, (image, options) in files.items():
    image.save(OUT / name, **options)
    Image.open(OUT / name).convert("RGB").save(OUT / f"{name}.expected.png", optimize=True)
