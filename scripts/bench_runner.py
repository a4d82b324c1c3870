#!/usr/bin/env python3
"""What it costs when nothing, or almost nothing, has to be done.

Makes a tree of files and one pipeline of six stages over it, for simsiam-pipe and, where their programs are given, for
DVC and Snakemake. The first stage reads the tree, each other one the stage before it; all are `cat`. The programs take
turns, and what is reported is the median. Installs nothing; everything happens in a temporary folder.

    scripts/bench_runner.py --ours target/release/simsiam-pipe --dvc venv/bin/dvc --snakemake venv/bin/snakemake
    scripts/bench_runner.py --ours target/release/simsiam-pipe --scaling 10000 50000 100000 200000

Memory is the largest resident set of a process, as GNU time reports it.
"""

import argparse
import json
import os
import pathlib
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

STAGES = 6


def make_tree(root, num_files, size):
    """Files of about `size` bytes in six folders, each with bytes of its own."""
    rng = random.Random(0)
    block = rng.randbytes(1 << 20)
    for idx in range(num_files):
        folder = root / f"class{idx % 6}"
        if idx < 6:
            folder.mkdir(parents=True)
        start = rng.randrange(len(block) // 2)
        length = rng.randrange(size // 2, size * 3 // 2)
        (folder / f"{idx}.jpg").write_bytes(idx.to_bytes(8, "little") + block[start : start + length])


class Ours:
    name = "simsiam-pipe"

    def __init__(self, program, dir):
        self.dir = dir
        self.args = [os.path.abspath(program), "-q", "run", "pipeline.yaml"]

    def write(self):
        lines = ["version: 1", "name: nothing", "stages:"]
        for stage in range(1, STAGES + 1):
            lines += [f"  s{stage}:", "    uses: command"]
            if stage == 1:
                command, sources = 'echo first > "$SIMSIAM_PIPE_OUTPUT/out.txt"', ", sources: [data]"
            else:
                lines.append(f"    inputs: {{ before: s{stage - 1} }}")
                command, sources = 'cat "$SIMSIAM_PIPE_INPUT_BEFORE/out.txt" > "$SIMSIAM_PIPE_OUTPUT/out.txt"', ""
            lines.append(f"    with: {{ run: [sh, -c, '{command}'], outputs: [out.txt]{sources} }}")
        (self.dir / "pipeline.yaml").write_text("\n".join(lines) + "\n")


class Dvc:
    name = "DVC"

    def __init__(self, program, dir):
        self.dir = dir
        self.program = os.path.abspath(program)
        self.args = [self.program, "repro", "-q"]

    def write(self):
        subprocess.run([self.program, "init", "-q", "--no-scm"], cwd=self.dir, check=True)
        subprocess.run([self.program, "config", "core.analytics", "false"], cwd=self.dir, check=True)
        subprocess.run([self.program, "config", "core.check_update", "false"], cwd=self.dir, check=True)
        lines = ["stages:"]
        for stage in range(1, STAGES + 1):
            command = "echo first > s1.txt" if stage == 1 else f"cat s{stage - 1}.txt > s{stage}.txt"
            before = "data" if stage == 1 else f"s{stage - 1}.txt"
            lines += [f"  s{stage}:", f"    cmd: {command}", f"    deps: [{before}]", f"    outs: [s{stage}.txt]"]
        (self.dir / "dvc.yaml").write_text("\n".join(lines) + "\n")


class Snakemake:
    name = "Snakemake"

    def __init__(self, program, dir):
        self.dir = dir
        self.args = [os.path.abspath(program), "--cores", "2", "--quiet", "all"]

    def write(self):
        lines = ["rule all:", f'    input: "s{STAGES}.txt"', "rule s1:"]
        lines += ['    input: [f"data/{name}.jpg" for name in glob_wildcards("data/{name}.jpg").name]']
        lines += ['    output: "s1.txt"', '    shell: "echo first > s1.txt"']
        for stage in range(2, STAGES + 1):
            lines += [f"rule s{stage}:", f'    input: "s{stage - 1}.txt"', f'    output: "s{stage}.txt"',
                      f'    shell: "cat {{input}} > {{output}}"']
        (self.dir / "Snakefile").write_text("\n".join(lines) + "\n")


def measure(args, cwd):
    """Seconds and the largest resident set in KiB."""
    gnu_time = shutil.which("time")
    wrapped = ([gnu_time, "-f", "%M"] if gnu_time else []) + args
    began = time.perf_counter()
    done = subprocess.run(wrapped, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    seconds = time.perf_counter() - began
    if done.returncode != 0:
        sys.exit(f"{' '.join(args)} failed:\n{done.stderr}")
    lines = done.stderr.split()
    return seconds, int(lines[-1]) if gnu_time and lines and re.fullmatch(r"\d+", lines[-1]) else 0


def show(what, name, seconds, kib):
    spread = f"{min(seconds):.3f}…{max(seconds):.3f}"
    memory = f"{max(kib) / 1024:7.1f} MiB" if max(kib) else ""
    print(f"{what:<12} {name:<14} {statistics.median(seconds):9.3f} s   {spread:<18} {memory}", flush=True)


def in_turns(what, programs, rounds, results, before=lambda program: None):
    """Lets the programs take turns and keeps the medians."""
    runs = {program.name: [] for program in programs}
    for _ in range(rounds):
        for program in programs:
            before(program)
            runs[program.name].append(measure(program.args, program.dir))
    for program in programs:
        seconds, kib = zip(*runs[program.name])
        show(what, program.name, seconds, kib)
        results.setdefault(what, {})[program.name] = {
            "seconds": seconds, "median": statistics.median(seconds), "peak_kib": max(kib)
        }


def touch(program):
    for path in (program.dir / "data").rglob("*.jpg"):
        os.utime(path)
    # A file that was changed just now could be changed again unseen.
    time.sleep(0.1)


def compare(options, base, results):
    kinds = [(Ours, options.ours), (Dvc, options.dvc), (Snakemake, options.snakemake)]
    programs = [kind(path, base / kind.name) for kind, path in kinds if path]
    for program in programs:
        make_tree(program.dir / "data", options.files, options.size)
        program.write()
    time.sleep(0.1)
    in_turns("first", programs, 1, results)
    in_turns("no-op", programs, options.rounds, results)
    in_turns("touched", programs, 1 if options.dvc else options.rounds, results, before=touch)
    in_turns("no-op after", programs, options.rounds, results)
    find = [measure(["find", "data", "-type", "f", "-newer", "data"], programs[0].dir) for _ in range(options.rounds)]
    show("stat", "find", *zip(*find))
    results["find"] = {"median": statistics.median(s for s, _ in find), "peak_kib": max(k for _, k in find)}
    for what in ["first", "no-op", "touched", "no-op after"]:
        for other in [program.name for program in programs[1:]]:
            ratio = results[what][other]["median"] / results[what][Ours.name]["median"]
            print(f"{what:<12} {other} / {Ours.name}: {ratio:.1f}")


def scale(options, base, results):
    for num_files in options.scaling:
        program = Ours(options.ours, base / f"files{num_files}")
        make_tree(program.dir / "data", num_files, options.size)
        program.write()
        time.sleep(0.1)
        in_turns(f"first {num_files}", [program], 1, results)
        in_turns(f"no-op {num_files}", [program], options.rounds, results)
        shutil.rmtree(program.dir)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", required=True, help="path of simsiam-pipe")
    parser.add_argument("--dvc", help="path of dvc")
    parser.add_argument("--snakemake", help="path of snakemake")
    parser.add_argument("--files", type=int, default=17_000, help="files of the tree")
    parser.add_argument("--size", type=int, default=4096, help="mean size of a file in bytes")
    parser.add_argument("--rounds", type=int, default=7, help="runs of which the median is taken")
    parser.add_argument("--scaling", type=int, nargs="+", help="only this program, for these numbers of files")
    parser.add_argument("--dir", help="where the temporary folder is made")
    parser.add_argument("--json", help="write all numbers to this file")
    options = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory(dir=options.dir) as base:
        (scale if options.scaling else compare)(options, pathlib.Path(base), results)
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
