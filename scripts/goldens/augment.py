"""Writes the references of the augmentation tests: torchvision on PIL images, with every random parameter pinned.

    python scripts/goldens/augment.py              # needs numpy, pillow, torchvision; tensorflow for tf.safetensors
    python scripts/goldens/augment.py --only tf

`tests/golden/augment/*.safetensors` hold inputs and outputs (height, width, 3), `*.json` say what was done. The
versions that made them stand in the JSON.
"""

import argparse
import json
import pathlib
import struct

import numpy as np

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden" / "augment"


def write_safetensors(path, tensors):
    names = {"uint8": "U8", "float32": "F32"}
    header, offset = {}, 0
    for name, array in tensors.items():
        header[name] = {
            "dtype": names[str(array.dtype)],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(array.tobytes() for array in tensors.values()))


def picture(width, height, seed):
    """Smooth shading, hard edges and some noise: what photographs have."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    image = np.stack([128 + 100 * np.sin(x / 9 + c) * np.cos(y / 7 - c) for c in range(3)], -1)
    image[(x - width / 3) ** 2 + (y - height / 2) ** 2 < (height / 4) ** 2] = rng.uniform(0, 255, 3)
    image[:, width // 2 : width // 2 + 3] = 255 - image[:, width // 2 : width // 2 + 3]
    return np.clip(image + rng.normal(0, 12, image.shape), 0, 255).round().astype(np.uint8)


def inputs():
    colors = np.random.default_rng(5).integers(0, 256, (48, 48, 3)).astype(np.uint8)
    colors[:4] = np.repeat(np.arange(192).reshape(4, 48, 1), 3, -1)  # greys
    colors[4:8, :, 1:] = 0  # pure reds
    return {
        "wide": picture(61, 47, 0),
        "tall": picture(31, 70, 1),
        "tiny": picture(5, 4, 2),
        "colors": colors,
    }


def torchvision_goldens():
    import PIL
    import torchvision
    from PIL import Image, ImageFilter
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import functional as F

    images = {name: Image.fromarray(array) for name, array in inputs().items()}
    tensors = {f"in/{name}": array for name, array in inputs().items()}
    cases = []

    def case(image, op, result, **params):
        name = f"out/{len(cases)}"
        tensors[name] = np.ascontiguousarray(np.asarray(result))
        cases.append({"input": f"in/{image}", "output": name, "op": op, **params})

    crops = {"wide": [(0, 0, 61, 47), (7, 5, 40, 33), (50, 40, 9, 7)], "tall": [(2, 11, 29, 37)], "tiny": [(0, 0, 5, 4), (1, 1, 1, 2)]}
    for image, boxes in crops.items():
        for left, top, width, height in boxes:
            for size in (24, 40):
                for mode in ("bilinear", "bicubic"):
                    result = F.resized_crop(images[image], top, left, height, width, [size, size], InterpolationMode(mode))
                    case(image, "resized_crop", result, box=[left, top, width, height], size=size, interpolation=mode)
    for image in ("wide", "tall"):
        for size in (16, 32):
            shorter = (size * 8 + 3) // 7
            whole = F.resize(images[image], shorter)
            case(image, "resize_and_center_crop", F.center_crop(whole, [size, size]), size=size)
            case(image, "center_crop", F.center_crop(F.resize(images[image], size), [size, size]), size=size)
            case(image, "squash", F.resize(images[image], [size, size]), size=size)
    case("wide", "horizontal_flip", F.hflip(images["wide"]))
    case("wide", "vertical_flip", F.vflip(images["wide"]))
    for turns in (1, 2, 3):
        case("wide", "rotate90", images["wide"].rotate(90 * turns, expand=True), turns=turns)
    for left, top in ((0, 0), (3, 7), (8, 8)):
        padded = F.pad(images["colors"], 4)
        case("colors", "window", F.crop(padded, top, left, 48, 48), left=left - 4, top=top - 4, size=48)
    for image in ("wide", "colors"):
        for factor in (0.0, 0.37, 1.0, 1.4, 1.8):
            case(image, "brightness", F.adjust_brightness(images[image], factor), factor=factor)
            case(image, "contrast", F.adjust_contrast(images[image], factor), factor=factor)
            case(image, "saturation", F.adjust_saturation(images[image], factor), factor=factor)
        case(image, "grayscale", F.to_grayscale(images[image], 3))
    for factor in (-0.5, -0.1, -0.003, 0.0, 0.07, 0.25, 0.5):
        case("colors", "hue", F.adjust_hue(images["colors"], factor), factor=factor)
    case("wide", "hue", F.adjust_hue(images["wide"], 0.1), factor=0.1)
    for image, sigmas in {"wide": (0.1, 0.5, 1.0, 1.37, 2.0, 5.0), "tiny": (1.0, 9.0), "tall": (0.8,)}.items():
        for sigma in sigmas:
            case(image, "gaussian_blur", images[image].filter(ImageFilter.GaussianBlur(sigma)), sigma=sigma)

    write_safetensors(OUT / "torchvision.safetensors", tensors)
    versions = {"pillow": PIL.__version__, "torchvision": torchvision.__version__}
    (OUT / "torchvision.json").write_text(json.dumps({"versions": versions, "cases": cases}, indent=1) + "\n")


def tensorflow_goldens():
    import tensorflow as tf

    source = inputs()["colors"][:24, :24].astype(np.float32)
    # Floats beyond 0…255, as one unclipped operation leaves them for the next.
    stretched = (source - 128) * 1.6 + 128
    images = {"plain": source, "stretched": stretched.astype(np.float32)}
    tensors = {f"in/{name}": array for name, array in images.items()}
    cases = []
    ops = {
        "tf_brightness": (tf.image.adjust_brightness, (-0.8, 31.5)),
        "tf_contrast": (tf.image.adjust_contrast, (0.2, 1.8)),
        "tf_saturation": (tf.image.adjust_saturation, (0.0, 0.5, 1.8)),
        "tf_hue": (tf.image.adjust_hue, (-0.2, 0.0, 0.13, 0.5)),
    }
    for image, array in images.items():
        for op, (function, values) in ops.items():
            for value in values:
                name = f"out/{len(cases)}"
                tensors[name] = function(array, value).numpy().astype(np.float32)
                cases.append({"input": f"in/{image}", "output": name, "op": op, "factor": value})
    write_safetensors(OUT / "tf.safetensors", tensors)
    (OUT / "tf.json").write_text(json.dumps({"versions": {"tensorflow": tf.__version__}, "cases": cases}, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=["torchvision", "tf"])
    only = parser.parse_args().only
    OUT.mkdir(parents=True, exist_ok=True)
    if only != "tf":
        torchvision_goldens()
    if only != "torchvision":
        tensorflow_goldens()
