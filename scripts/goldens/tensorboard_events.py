"""Golden bytes of an event file, written by TensorBoard's own code (pip install tensorboard).

Usage: tensorboard_events.py OUT.hex
"""

import io
import sys

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter


class Sink(io.BytesIO):
    """A sink that RecordWriter does not close."""

    def close(self):
        pass


sink = Sink()
writer = RecordWriter(sink)
events = [
    Event(wall_time=1.5, file_version="brain.Event:2"),
    Event(wall_time=2.5, step=7, summary=Summary(value=[Summary.Value(tag="train/loss", simple_value=-0.75)])),
    Event(
        wall_time=3.5,
        step=14,
        summary=Summary(
            value=[
                Summary.Value(tag="train/loss", simple_value=-0.875),
                Summary.Value(tag="knn/top1", simple_value=0.5),
            ]
        ),
    ),
]
for event in events:
    writer.write(event.SerializeToString())
with open(sys.argv[1], "w", encoding="utf-8") as file:
    file.write(sink.getvalue().hex() + "\n")
