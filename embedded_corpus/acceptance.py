"""Checks the embedded corpus with networks trained on real people: `python -m embedded_corpus.acceptance CORPUS`.

CORPUS is a folder in layout "mead". `--clips N` measures N clips, evenly spaced in the list of clips. The program
checks several requirements, such as the share of frames in which a network finds the face. The program prints one line
per requirement, and exits with 1 if a requirement is not met.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedded_corpus.clip import ClipTruth
from embedded_corpus.layouts import read_truth
from talking_face.media.reading import AUDIO_RATE, iter_frames, read_audio
from talking_face.pretrained.dlib_models import detect_faces_hog, face_embedding
from talking_face.pretrained.face_landmarker import FaceLandmarker
from talking_face.pretrained.model_files import ModelFiles
from talking_face.progress import Progress
from talking_face.reasons import UserError
from talking_face.threads import limit_threads

HOG_EVERY = 5  # dlib's HOG face detector runs only on every fifth frame, because it takes about 25 ms per frame
INNER_LIPS, CORNERS, LIP_MIDDLE = (13, 14), (61, 291), (0, 17)
EYES, TOP_AND_CHIN = (33, 263), (10, 152)


@dataclass
class ClipMeasurement:
    """The measurements of one clip."""

    truth: ClipTruth
    frames: int
    mesh_found: int
    hog_tried: int
    hog_found: int
    mouth_r: float  # correlation between the measured and the true mouth opening
    corner: float  # median of `corner_height` over the frames
    embeddings: np.ndarray  # (E, 128)
    energy_r: float  # correlation between the energy of the sound and the true mouth opening
    pitch: float  # median pitch of the voice, Hz
    energy: float  # root mean square of the sound; full scale is 1
    tempo: float  # phones per second


def measure_clip(video: Path, truth_file: Path, embeddings: int = 2, *, files: ModelFiles) -> ClipMeasurement:
    """Measures one clip. Computes the embeddings of at most `embeddings` faces, evenly spaced in time."""
    truth = read_truth(truth_file)
    fps = float(truth["fps"])
    wanted = {round((k + 0.5) * len(truth["frames"]["time"]) / embeddings) for k in range(embeddings)}
    gaps, corners, vectors = [], [], []
    found = hog_tried = hog_found = count = 0
    with FaceLandmarker("video", files=files) as landmarker:
        for k, rgb in enumerate(iter_frames(video, None)):
            count += 1
            mesh = landmarker.detect(rgb, round(k * 1000 / fps))
            gaps.append(np.nan if mesh is None else _gap(mesh.landmarks))
            corners.append(np.nan if mesh is None else corner_height(mesh.landmarks))
            found += mesh is not None
            if k % HOG_EVERY == 0 or k in wanted:
                boxes = detect_faces_hog(rgb, upsample=0)
                if k % HOG_EVERY == 0:
                    hog_tried += 1
                    hog_found += bool(boxes)
                if k in wanted and boxes:
                    vectors.append(face_embedding(rgb, boxes[0], files))
    track = np.array(gaps)
    real = np.array(truth["frames"]["mouth_open_px"])[:count]
    good = np.isfinite(track)
    sound = read_audio(video).astype(np.float64) / 32768
    pitch, energy, energy_r = _sound(sound, np.array(truth["frames"]["mouth_open"]), fps)
    spoken = [p for p in truth["phones"] if p["phone"] != "sil"]
    return ClipMeasurement(
        truth,
        count,
        found,
        hog_tried,
        hog_found,
        float(np.corrcoef(track[good], real[good])[0, 1]) if good.sum() > 2 else float("nan"),
        float(np.nanmedian(corners)) if good.any() else float("nan"),
        np.array(vectors, np.float32).reshape(-1, 128),
        energy_r,
        pitch,
        energy,
        len(spoken) / sum(p["end"] - p["start"] for p in spoken),
    )


def _gap(points: np.ndarray) -> float:
    return float(np.linalg.norm(points[INNER_LIPS[0], :2] - points[INNER_LIPS[1], :2]))


def corner_height(points: np.ndarray) -> float:
    """Height of the lip corners above the middle of the lips, from (478, 3) points.

    The height is measured along the vertical axis of the face, and divided by the distance between the outer eye
    corners.
    """
    down = points[TOP_AND_CHIN[1]] - points[TOP_AND_CHIN[0]]
    down = down / np.linalg.norm(down)
    lift = points[list(LIP_MIDDLE)].mean(0) - points[list(CORNERS)].mean(0)
    return float(lift @ down / np.linalg.norm(points[EYES[0]] - points[EYES[1]]))


def _sound(sound: np.ndarray, opening: np.ndarray, fps: float) -> tuple[float, float, float]:
    """(median pitch in Hz, energy, correlation between energy and true mouth opening per frame) of 16 kHz sound."""
    hop = AUDIO_RATE / fps
    power = np.array([np.sqrt(np.mean(sound[round(k * hop) : round((k + 1) * hop)] ** 2)) for k in range(len(opening))])
    r = float(np.corrcoef(power, opening)[0, 1])
    pitches = []
    for at in range(0, len(sound) - 1024, 320):
        part = sound[at : at + 1024] - sound[at : at + 1024].mean()
        if np.sqrt(np.mean(part**2)) < 0.35 * power.max():
            continue
        spectrum = np.abs(np.fft.rfft(part * np.hanning(1024), 4096)) ** 2
        shape = np.fft.irfft(spectrum)[:400]
        lag = 40 + int(np.argmax(shape[40:230]))  # 70 to 400 Hz
        half = shape[lag // 2] if lag >= 80 else 0.0
        if half > 0.9 * shape[lag]:  # the pitch of `lag` is an octave too low, because half the lag fits nearly as well
            lag //= 2
        if shape[lag] > 0.4 * shape[0]:
            pitches.append(AUDIO_RATE / lag)
    return float(np.median(pitches)) if pitches else float("nan"), float(np.sqrt(np.mean(sound**2))), r


def identity_numbers(clips: list[ClipMeasurement]) -> dict[str, float]:
    """Measures how well dlib's face embeddings separate the speakers, with nearest neighbours and distances.

    The nearest neighbour of a face is searched for only among the faces of other clips.
    """
    vectors = np.concatenate([c.embeddings for c in clips])
    clip = np.concatenate([[k] * len(c.embeddings) for k, c in enumerate(clips)])
    who = np.array([clips[k].truth["speaker"] for k in clip])
    distances = np.linalg.norm(vectors[:, None] - vectors[None], axis=-1)
    other_clip = np.where(clip[:, None] == clip[None], np.inf, distances)
    same = who[:, None] == who[None]
    nearest = other_clip.argmin(1)
    names = sorted(set(who))
    means = np.array([vectors[who == n].mean(0) for n in names])
    between = np.linalg.norm(means[:, None] - means[None], axis=-1) + np.diag([np.inf] * len(names))
    cross = distances[~same]
    return {
        "nearest_same": float((who == who[nearest]).mean()),
        "means_min": float(between.min()),
        "cross_min": float(cross.min()) if cross.size else float("nan"),
        "cross_5th": float(np.percentile(cross, 5)) if cross.size else float("nan"),
        "within_max": float(np.where(same, distances, 0).max()),
        "within_mean": float(distances[same & (clip[:, None] != clip[None])].mean()),
    }


def lip_separation(clips: list[ClipMeasurement]) -> dict[str, float]:
    """The lowest corner height of all happy clips minus the highest corner height of all sad clips, by speaker.

    If the difference is positive, the lip corners are higher in every happy clip than in every sad clip.
    """
    out = {}
    for name in sorted({c.truth["speaker"] for c in clips}):
        of = {
            e: [c.corner for c in clips if c.truth["speaker"] == name and c.truth["emotion"] == e]
            for e in ("happy", "sad")
        }
        if of["happy"] and of["sad"]:
            out[name] = min(of["happy"]) - max(of["sad"])
    return out


def draw_time(speaker: str, width: int = 640, height: int = 360) -> float:
    """Processor time to draw one frame, ms: the median of three clips. The drawing of the textures is not included."""
    import cv2

    from embedded_corpus.clip import ClipSpec, render_clip

    cv2.setNumThreads(1)
    times = []
    for emotion in ("neutral", "happy", "surprised"):
        spec = ClipSpec(speaker, emotion, 1, 1, ("s01",), width=width, height=height)
        frames, _, truth = render_clip(spec)
        start = time.process_time()
        sum(1 for _ in frames)
        times.append((time.process_time() - start) / len(truth["frames"]["time"]) * 1000)
    return float(np.median(times))


def _draw_times(speakers: list[str]) -> list[float]:
    """`draw_time` of each speaker, measured in a process whose libraries use one thread."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(draw_time, speakers))


def report(clips: list[ClipMeasurement], draw_ms: list[float]) -> list[tuple[str, str, str, bool]]:
    """One line per requirement: (name of the measured property, requirement, measured value, whether it is met)."""
    lines: list[tuple[str, str, str, bool]] = []

    def add(point: str, required: str, measured: str, passed: bool | np.bool_ = True) -> None:
        lines.append((point, required, measured, bool(passed)))

    frames = sum(c.frames for c in clips)
    mesh = sum(c.mesh_found for c in clips) / frames
    add("frames with a face, Face Landmarker", ">= 0.99", f"{mesh:.4f} of {frames}", mesh >= 0.99)
    tried = sum(c.hog_tried for c in clips)
    hog = sum(c.hog_found for c in clips) / tried
    add("frames with a face, dlib HOG, upsample 0", ">= 0.95", f"{hog:.4f} of {tried}", hog >= 0.95)
    mouth = np.array([c.mouth_r for c in clips])
    below = int((~(mouth >= 0.9)).sum())
    spread = f"{np.nanmin(mouth):.3f} (median {np.nanmedian(mouth):.3f}, below 0.9: {below})"
    add("mouth opening, Pearson, worst clip", ">= 0.90", spread, below == 0)
    lips = lip_separation(clips)
    if lips:
        worst = min(lips, key=lambda n: lips[n])
        shown = f"{lips[worst]:+.3f} ({worst}, of {len(lips)})"
        add("lip corners: happy above sad, worst speaker", "> 0", shown, lips[worst] > 0)
    who = identity_numbers(clips)
    add("nearest face is the same person", "1", f"{who['nearest_same']:.4f}", who["nearest_same"] == 1.0)
    add("two persons' mean faces, closest", ">= 0.6", f"{who['means_min']:.3f}", not who["means_min"] < 0.6)
    crossed = f"{who['cross_min']:.3f} (5th percentile {who['cross_5th']:.3f})"
    add("any two faces of two persons, closest", "", crossed)
    add("two faces of one person", "", f"mean {who['within_mean']:.3f}, farthest {who['within_max']:.3f}")
    energy = np.array([c.energy_r for c in clips])
    shown = f"{energy.min():.2f} (median {np.median(energy):.2f})"
    add("sound's energy follows the opening, worst clip", "> 0.5", shown, energy.min() > 0.5)
    errors = _pitch_errors(clips)
    if errors:
        add("neutral pitch off the speaker's, worst", "<= 15 %", f"{100 * max(errors):.0f} %", max(errors) <= 0.15)
    for emotion in ("angry", "happy", "sad", "surprised"):
        if change := _voice_change(clips, emotion):
            add(f"voice, {emotion} against neutral", "", change)
    if draw_ms:
        shown = f"{np.median(draw_ms):.1f} ms (slowest speaker {max(draw_ms):.1f})"
        add("drawing a frame at 640x360", "<= 12 ms", shown, np.median(draw_ms) <= 12)
    return lines


def _pitch_errors(clips: list[ClipMeasurement]) -> list[float]:
    """Relative difference per speaker between the median pitch of the neutral clips and the speaker's defined pitch."""
    from embedded_corpus.identity import get_identity

    neutral: dict[str, list[float]] = {}
    for c in clips:
        if c.truth["emotion"] == "neutral":
            neutral.setdefault(c.truth["speaker"], []).append(c.pitch)
    return [abs(float(np.nanmedian(v)) / get_identity(s).pitch - 1) for s, v in neutral.items()]


def _voice_change(clips: list[ClipMeasurement], emotion: str) -> str:
    """Pitch, energy and tempo of an emotion at levels 2 and 3, relative to the same speakers' neutral clips."""
    ratios = []
    for c in clips:
        if c.truth["emotion"] == emotion and c.truth["level"] >= 2:
            base = [n for n in clips if n.truth["emotion"] == "neutral" and n.truth["speaker"] == c.truth["speaker"]]
            if base:
                ratios.append(
                    [getattr(c, k) / np.nanmedian([getattr(n, k) for n in base]) for k in ("pitch", "energy", "tempo")]
                )
    if not ratios:
        return ""
    pitch, energy, tempo = np.nanmedian(np.array(ratios), 0)
    return f"pitch x{pitch:.2f}, energy {20 * np.log10(energy):+.1f} dB, tempo x{tempo:.2f}"


def main(argv: list[str] | None = None) -> int:
    """Measures a corpus and prints the table. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m embedded_corpus.acceptance", description=__doc__)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--clips", type=int, default=0, help="number of clips to measure, evenly spaced; 0: all")
    parser.add_argument("--no-timing", action="store_true", help="do not measure the drawing time")
    options = parser.parse_args(argv)
    limit_threads(1)
    truths = sorted((options.corpus / "_truth").glob("[MW]*/front/*/*/*.json"))
    if not truths:
        print(f"{options.corpus} is not an embedded corpus in layout mead", file=sys.stderr)
        return 2
    if options.clips:
        truths = [truths[k] for k in np.unique(np.linspace(0, len(truths) - 1, options.clips).round().astype(int))]
    clips, files = [], ModelFiles.from_environment()
    try:
        with Progress(len(truths), "clips", "measure") as progress:
            for file in truths:
                speaker, view, emotion, level, _ = file.relative_to(options.corpus / "_truth").parts
                video = options.corpus / speaker / "video" / view / emotion / level / f"{file.stem}.mp4"
                clips.append(measure_clip(video, file, files=files))
                progress.advance()
        speakers = sorted({c.truth["speaker"] for c in clips})
        lines = report(clips, [] if options.no_timing else _draw_times(speakers))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    for point, required, value, passed in lines:
        print(f"{point:46} {required:9} {value:60} {'ok' if passed else 'MISSED'}")
    for c in clips:
        if not c.mouth_r >= 0.9:
            print(
                f"  mouth {c.mouth_r:.3f}: {'/'.join(str(c.truth[k]) for k in ('speaker', 'emotion', 'level', 'take'))}"
            )
    return 0 if all(line[3] for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
