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
    import torch
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
    padding = {"constant": {"fill": (200, 30, 7)}, "edge": {}, "reflect": {}, "symmetric": {}}
    for mode, options in padding.items():
        for image, pad, size in (("wide", 9, 40), ("tiny", 3, 10)):
            padded = F.pad(images[image], pad, padding_mode=mode, **options)
            for left, top in ((0, 0), (padded.width - size, padded.height - size)):
                result = F.crop(padded, top, left, size, size)
                case(image, "window", result, left=left - pad, top=top - pad, size=size, padding_mode=mode, **options)
    for image in ("wide", "tall", "tiny"):
        for size in (4, 17, 32, 80):
            case(image, "central", F.center_crop(images[image], [size, size]), size=size)
    for image, shorter in (("wide", 20), ("wide", 90), ("tall", 24)):
        for mode in ("bilinear", "bicubic"):
            result = F.resize(images[image], shorter, InterpolationMode(mode))
            case(image, "resize", result, width=result.width, height=result.height, interpolation=mode)
    for threshold in (0, 100, 128, 255, 256):
        case("colors", "solarize", F.solarize(images["colors"], threshold), threshold=threshold)
    for image, sizes in {"wide": (3, 9, 23), "tall": (5,)}.items():
        for kernel_size in sizes:
            for sigma in (0.1, 0.8, 2.0):
                result = F.gaussian_blur(images[image], [kernel_size, kernel_size], [sigma, sigma])
                case(image, "kernel_blur", result, kernel_size=kernel_size, sigma=sigma)
    for left, top, width, height in ((0, 0, 61, 47), (7, 30, 20, 3), (60, 46, 1, 1)):
        tensor = torch.from_numpy(inputs()["wide"].transpose(2, 0, 1).copy())
        value = torch.tensor([9, 200, 31], dtype=torch.uint8)[:, None, None]
        erased = F.erase(tensor, top, left, height, width, value).numpy().transpose(1, 2, 0)
        case("wide", "erase", erased, box=[left, top, width, height], fill=[9, 200, 31])
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


def torchvision_distributions():
    """The distribution functions of the random parameters, each at 200 places, from many draws of torchvision's own."""
    import torch
    import torchvision
    from PIL import Image
    from torchvision import transforms as T

    torch.manual_seed(0)
    draws = 200_000
    tables = {}

    def table(name, values):
        values = np.sort(np.asarray(values, np.float64))
        places = np.unique(np.quantile(values, np.linspace(0, 1, 201)))
        share = np.searchsorted(values, places, side="right") / len(values)
        tables[name] = {"at": [float(f"{at:.9g}") for at in places], "share": [round(float(s), 6) for s in share]}

    def boxes(name, draw):
        box = np.array([draw() for _ in range(draws)])
        for column, key in enumerate(("top", "left", "height", "width")):
            table(f"{name}.{key}", box[:, column])
        table(f"{name}.area", box[:, 2] * box[:, 3])

    for name, (width, height) in {"crop": (400, 300), "narrow_crop": (40, 300)}.items():
        image = Image.new("RGB", (width, height))
        boxes(name, lambda: T.RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]))
    image = torch.zeros(3, 60, 80)
    boxes("erasing", lambda: T.RandomErasing.get_params(image, (0.02, 0.33), (0.3, 3.3))[:4])
    image = Image.new("RGB", (48, 40))
    shifts = np.array([T.RandomCrop.get_params(image, (32, 32))[:2] for _ in range(draws)])
    table("shift.top", shifts[:, 0])
    table("shift.left", shifts[:, 1])
    jitter = [T.ColorJitter.get_params([0.6, 1.4], [0.6, 1.4], [0.2, 1.8], [-0.1, 0.1]) for _ in range(draws)]
    for column, key in enumerate(("brightness", "contrast", "saturation", "hue")):
        table(f"jitter.{key}", [params[1 + column] for params in jitter])
    # Which of the 24 orders: the changes as digits of base 4.
    table("jitter.order", [sum(int(change) * 4**place for place, change in enumerate(params[0])) for params in jitter])
    table("blur.sigma", [T.GaussianBlur.get_params(0.1, 2.0) for _ in range(draws)])

    def applied(name, transform, image):
        same = np.asarray(image)
        table(f"{name}.applied", [not np.array_equal(np.asarray(transform(image)), same) for _ in range(draws // 4)])

    pixels = Image.fromarray(np.array([[[255, 0, 0], [0, 0, 9]], [[0, 9, 0], [3, 1, 200]]], np.uint8))
    applied("horizontal_flip", T.RandomHorizontalFlip(0.3), pixels)
    applied("vertical_flip", T.RandomVerticalFlip(0.5), pixels)
    applied("grayscale", T.RandomGrayscale(0.2), pixels)
    applied("solarize", T.RandomSolarize(128, 0.7), pixels)
    applied("gaussian_blur", T.RandomApply([T.GaussianBlur(3, 1.0)], 0.1), pixels)
    versions = {"torch": torch.__version__.split("+")[0], "torchvision": torchvision.__version__.split("+")[0]}
    content = {"versions": versions, "draws": draws, "tables": tables}
    (OUT / "distributions.json").write_text(json.dumps(content) + "\n")


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
    parser.add_argument("--only", choices=["torchvision", "distributions", "tf"])
    only = parser.parse_args().only
    OUT.mkdir(parents=True, exist_ok=True)
    for name, write in {
        "torchvision": torchvision_goldens,
        "distributions": torchvision_distributions,
        "tf": tensorflow_goldens,
    }.items():
        if only in (None, name):
            write()
