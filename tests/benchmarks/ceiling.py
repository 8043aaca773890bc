"""The ceiling of preprocessing: decode, show the landmarker the face, and nothing else.

Frozen: it shares no code with the pipeline and does not change with it, so a slower pipeline cannot slow it down too.

    python ceiling.py window '[["clip.mp4", [left, top, width, height]], ...]'

Modes, each in one process and on one thread:
    window  the pipeline's own decoder, input size (384 px) and tracking mode: the ceiling
    full    the same tracking mode on whole frames
    image   IP_LAP's way in today's API: image mode on whole frames, one after the other
Clips of 30 frames/s are thinned to 25, as the pipeline does. Prints frames, seconds of wall and of CPU time as JSON,
from the first clip on: imports are not counted.
"""

from __future__ import annotations

# ruff: noqa: E402 - the thread limits come before the libraries that read them
import json
import os
import sys
import time
from collections.abc import Iterator

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"

import av
import av.filter
import mediapipe as mp
import numpy as np
from mediapipe.tasks.python import BaseOptions, vision

INPUT = 384


def frames_25(path: str) -> Iterator[av.VideoFrame]:
    """Frames nearest to k/25 s."""
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        stream.codec_context.thread_type = "NONE"
        rate = float(stream.average_rate)
        wanted = 0
        for index, frame in enumerate(container.decode(stream)):
            if index >= wanted * rate / 25 - 0.5:
                wanted += 1
                yield frame


def cutter(frame: av.VideoFrame, window: list[int]) -> av.filter.Graph:
    """A filter graph from a frame to the window in RGB at the landmarker's input size."""
    left, top, width, height = window
    size = f"{round(width * INPUT / max(width, height))}:{round(height * INPUT / max(width, height))}"
    graph = av.filter.Graph()
    graph.threads = 1
    chain = [
        graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base),
        graph.add("crop", f"{width}:{height}:{left}:{top}"),
        graph.add("scale", f"{size}:flags=area"),
        graph.add("format", "yuvj444p"),
        graph.add("scale", f"{size}:flags=full_chroma_int"),
        graph.add("format", "rgb24"),
        graph.add("buffersink"),
    ]
    for before, after in zip(chain, chain[1:]):  # noqa: B905, RUF007
        before.link_to(after)
    graph.configure()
    return graph


def one_clip(path: str, window: list[int], mode: str, model: str) -> int:
    running = vision.RunningMode.IMAGE if mode == "image" else vision.RunningMode.VIDEO
    options = vision.FaceLandmarkerOptions(
        base_options=BaseOptions(model_asset_path=model),
        running_mode=running,
        num_faces=1,
        output_face_blendshapes=mode != "image",
    )
    seen = 0
    graph = None
    with vision.FaceLandmarker.create_from_options(options) as landmarker:
        for k, frame in enumerate(frames_25(path)):
            if mode == "window":
                graph = graph or cutter(frame, window)
                graph.push(frame)
                picture = graph.pull().to_ndarray()
            else:
                picture = frame.to_ndarray(format="rgb24")
            image = mp.Image(image_format=mp.ImageFormat.SRGB, data=np.ascontiguousarray(picture))
            found = landmarker.detect(image) if mode == "image" else landmarker.detect_for_video(image, k * 40)
            seen += bool(found.face_landmarks)
    if not seen:
        raise SystemExit(f"no face in {path}")
    return k + 1


def main() -> None:
    mode, clips, model = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
    wall, cpu = time.perf_counter(), time.process_time()
    frames = sum(one_clip(path, window, mode, model) for path, window in clips)
    print(json.dumps({"frames": frames, "wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}))


if __name__ == "__main__":
    main()
