"""Reads what `pretrain` and `export --format projector` leave for TensorBoard with TensorBoard's own reader.

    pip install tensorboard
    python scripts/check_tensorboard.py RUNS/pretrain PROJECTOR

The first folder is the artifact of a `pretrain` stage, the second what `export --format projector` wrote.
"""

import json
import struct
import sys
from pathlib import Path

from google.protobuf import text_format
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig


def check_events(artifact: Path) -> None:
    events = EventAccumulator(str(artifact / "logs"))
    events.Reload()
    history = [json.loads(line) for line in (artifact / "history.jsonl").read_text().splitlines()]
    names = {"train/loss": "loss", "train/embedding_std_ratio": "embedding_std_ratio", "train/lr": "lr", "knn/top1": "knn_top1"}
    for tag, name in names.items():
        expected = [(line["step"], line[name]) for line in history if line.get(name) is not None]
        found = {event.step: event.value for event in events.Scalars(tag)}
        assert expected and found, tag
        for step, value in expected:
            # Event files hold 32-bit floats.
            assert found[step] == struct.unpack("f", struct.pack("f", value))[0], (tag, step, found[step], value)
    sheets = events.Images("views/preview")
    assert len(sheets) == 1 and sheets[0].encoded_image_string.startswith(b"\x89PNG"), "the contact sheet is missing"
    assert sheets[0].width > 0 and sheets[0].height > 0


def check_projector(folder: Path) -> None:
    config = text_format.Parse((folder / "projector_config.pbtxt").read_text(), ProjectorConfig())
    assert config.embeddings, "no embeddings"
    for embedding in config.embeddings:
        rows = (folder / embedding.tensor_path).read_bytes()
        if embedding.tensor_path.endswith(".bytes"):
            count, dim = embedding.tensor_shape
            assert len(rows) == 4 * count * dim, (len(rows), count, dim)
        else:
            lines = rows.decode().splitlines()
            count, dim = len(lines), len(lines[0].split("\t"))
            assert all(len(line.split("\t")) == dim for line in lines)
        metadata = (folder / embedding.metadata_path).read_text(encoding="utf-8").splitlines()
        # A table of several columns has a heading.
        heading = 1 if "\t" in metadata[0] else 0
        assert len(metadata) - heading == count, (len(metadata), count)
        if embedding.sprite.image_path:
            assert (folder / embedding.sprite.image_path).read_bytes()[:4] == b"\x89PNG"


def main() -> None:
    artifact, projector = map(Path, sys.argv[1:])
    check_events(artifact)
    check_projector(projector)
    print("TensorBoard reads the events and the embeddings")


main()
