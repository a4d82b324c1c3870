"""Compiles the CUDA kernels for every precision with NVRTC, and says what each needs of a multiprocessor. No GPU.

    pip install nvidia-cuda-nvrtc
    python scripts/check_cuda_kernels.py [sm_80 sm_90 ...]

Fails where one does not compile, where a kernel is missing, and where one could not be launched with the 256 threads that
the host gives it, or would spill its registers.
"""

import ctypes
import glob
import re
import struct
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KERNELS = ROOT / "src/cuda/kernels"
PRECISIONS = ["f32", "tf32", "bf16", "f16"]
THREADS = 256
# Of a multiprocessor, and of a block without being asked for more; all compute capabilities from 8.0 on.
REGISTERS = 65536
SHARED = 48 << 10
# Bytes of stack that a kernel may have: a few for arguments of divisions in f64.
STACK = 64


def declared():
    """The order of the sources and the names of the kernels, from the host's own table."""
    text = (ROOT / "src/cuda/kernels.rs").read_text()
    sources = re.findall(r'include_str!\("kernels/(\w+\.cu)"\)', text)
    tables = re.findall(r"pub const (?:KERNELS|CONVERSIONS).*?= \[(.*?)\];", text, re.S)
    return sources, {name for table in tables for name in re.findall(r'"(\w+)"', table)}


def nvrtc():
    for folder in [*sys.path, "/usr/local/cuda/lib64"]:
        for pattern in ["nvidia/*/lib/libnvrtc.so.*", "libnvrtc.so.*"]:
            found = sorted(glob.glob(f"{folder}/{pattern}"))
            if found:
                return ctypes.CDLL(found[0])
    sys.exit("NVRTC was not found: pip install nvidia-cuda-nvrtc")


def compile_kernels(lib, source, arch):
    program = ctypes.c_void_p()

    def check(code, action):
        if code != 0:
            size = ctypes.c_size_t()
            lib.nvrtcGetProgramLogSize(program, ctypes.byref(size))
            log = ctypes.create_string_buffer(size.value)
            lib.nvrtcGetProgramLog(program, log)
            sys.exit(f"{action}: error {code}\n{log.value.decode()}")

    check(lib.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None), "create")
    options = [f"--gpu-architecture={arch}".encode(), b"--std=c++17", b"--warning-as-error=all-warnings"]
    check(lib.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options)), arch)
    size = ctypes.c_size_t()
    check(lib.nvrtcGetCUBINSize(program, ctypes.byref(size)), "size")
    image = ctypes.create_string_buffer(size.value)
    check(lib.nvrtcGetCUBIN(program, image), "image")
    lib.nvrtcDestroyProgram(ctypes.byref(program))
    return image.raw


def resources(image):
    """Registers, stack and static shared memory of each kernel of an ELF image."""
    section_offset, = struct.unpack_from("<Q", image, 40)
    entry_size, num_sections, names_section = struct.unpack_from("<HHH", image, 58)

    def section(idx):
        return struct.unpack_from("<IIQQQQIIQQ", image, section_offset + idx * entry_size)

    def text(offset):
        return image[offset : image.index(b"\0", offset)].decode()

    names_offset = section(names_section)[4]
    sections = {text(names_offset + section(i)[0]): section(i) for i in range(num_sections)}
    symbols, strings = sections[".symtab"], sections[".strtab"]
    symbol = lambda idx: text(strings[4] + struct.unpack_from("<I", image, symbols[4] + idx * 24)[0])
    found = {}
    for name, entry in sections.items():
        if name.startswith(".text."):
            found[name[6:]] = {"registers": 0, "stack": 0, "shared": 0}
    for name, entry in sections.items():
        if name.startswith(".nv.shared.") and name[11:] in found:
            found[name[11:]]["shared"] = entry[5]
    info = sections[".nv.info"]
    at, end = info[4], info[4] + info[5]
    while at < end:
        form, kind, size = struct.unpack_from("<BBH", image, at)
        # An attribute of 4 bytes has its value in place of a size.
        if form == 4:
            if kind == 0x11:  # frame size
                idx, frame = struct.unpack_from("<II", image, at + 4)
                found.get(symbol(idx), {})["stack"] = frame
            if kind == 0x2F:  # register count
                idx, count = struct.unpack_from("<II", image, at + 4)
                found.get(symbol(idx), {})["registers"] = count
            at += 4 + size
        else:
            at += 4
    return found


def main():
    archs = sys.argv[1:] or ["sm_80", "sm_90"]
    lib = nvrtc()
    sources, names = declared()
    text = "".join((KERNELS / source).read_text() for source in sources)
    failures = []
    for precision, name in enumerate(PRECISIONS):
        for arch in archs:
            found = resources(compile_kernels(lib, f"#define PRECISION {precision}\n{text}", arch))
            if set(found) != names:
                failures.append(f"{name} for {arch}: kernels {sorted(set(found) ^ names)} are on one side only")
            for kernel, needs in found.items():
                if not 0 < needs["registers"] <= REGISTERS // THREADS:
                    failures.append(f"{name} for {arch}: `{kernel}` takes {needs['registers']} registers")
                if needs["shared"] > SHARED:
                    failures.append(f"{name} for {arch}: `{kernel}` takes {needs['shared']} bytes of shared memory")
                if needs["stack"] > STACK:
                    failures.append(f"{name} for {arch}: `{kernel}` has a stack of {needs['stack']} bytes: it spills")
            of = lambda key: max(found.items(), key=lambda item: item[1][key])
            most = ", ".join(f"{key} {of(key)[1][key]} (`{of(key)[0]}`)" for key in ["registers", "shared", "stack"])
            print(f"{name} for {arch}: {len(found)} kernels; at the most {most}")
    if failures:
        sys.exit("\n".join(failures))


if __name__ == "__main__":
    main()
