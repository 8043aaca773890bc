"""MEAD as its users have it: folders or tars, any nesting, every view. File numbers are takes, not sentences.

Recognised from the end of a path, so that `M003/video/front/...`, `Part0/M003/video/1/front/...`,
`W009_video/video/front/...` and tar members (`M003/video.tar!video/front/...`) all work:
    <view>/<emotion>/level_<n>/<number>.mp4       video
    audio/<emotion>/level_<n>/<number>.m4a        sound, shared by all views of the take
The actor is the nearest folder above that is named like one.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from pathlib import Path

from pipelines.readers.archives import files
from pipelines.readers.base import AUDIO_SUFFIXES, VIDEO_SUFFIXES, Discovery, Found, ReaderOptions
from talking_face.clip import Clip
from talking_face.emotions import DATASET_LABELS
from talking_face.reasons import Reason, UserError

VIEWS = ("front", "down", "top", "left_30", "left_60", "right_30", "right_60")

_ACTOR = re.compile(r"([MW]\d{3}(?:-\d)?)(?:_video|_audio)?")
_LEVEL = re.compile(r"level_([1-3])")
_NUMBER = re.compile(r"\d{3}")


def discover(root: Path, options: ReaderOptions) -> Discovery:
    """All clips of the asked view under `root` (resolved), with the m4a of each where there is one."""
    if options.view != "all" and options.view not in VIEWS:
        raise UserError(f"MEAD has no view {options.view!r}; it has {', '.join(VIEWS)}, or all")
    into = Discovery()
    sounds: dict[tuple[str, str, str, str], Found] = {}
    used: set[tuple[str, str, str, str]] = set()
    layouts: Counter[str] = Counter()
    for found in files(root, into):
        label = _label(found.parts, root.name)
        if isinstance(label, str):
            reason = Reason.BAD_LABEL if label.startswith(("actor", "emotion", "level")) else Reason.NOT_A_CLIP
            into.skip(found.name, reason, label)
            continue
        actor, view, emotion, level, take = label
        layouts["tar archives" if found.source.member else "folders"] += 1
        if view is None:
            key = (actor, emotion, level, take)
            if key in sounds:
                into.skip(
                    found.name, Reason.DUPLICATE_ID, f"the same take's sound as {sounds[key].name}, which is used"
                )
            else:
                sounds[key] = found
        elif options.view not in ("all", view):
            into.skip(found.name, Reason.NOT_A_CLIP, f"view {view}; this run reads {options.view}")
            used.add((actor, emotion, level, take))
        else:
            clip_id = f"mead/{actor}/{view}/{emotion}/{level}/{take}"
            into.clips.append(
                Clip(
                    clip_id=clip_id,
                    dataset="mead",
                    speaker=actor,
                    video=found.source,
                    emotion=DATASET_LABELS["mead"][emotion],
                    intensity=int(level),
                    take=take,
                    view=view,
                )
            )
    into.clips = [_with_sound(clip, sounds, used) for clip in into.clips]
    for key, found in sounds.items():
        if key not in used:
            into.skip(found.name, Reason.NOT_A_CLIP, "sound of a take without a video")
    into.notes.append("MEAD layout: " + (", ".join(f"{n} files in {kind}" for kind, n in layouts.items()) or "none"))
    actors = {clip.speaker for clip in into.clips}
    silent = sum(clip.audio is None for clip in into.clips)
    into.notes.append(f"view {options.view}: {len(into.clips)} clips of {len(actors)} actors")
    if silent:
        into.notes.append(f"{silent} clips have no sound file; the video's own track is used")
    return into.finish()


def _label(parts: tuple[str, ...], root_name: str) -> tuple[str, str | None, str, str, str] | str:
    """(actor, view or None for sound, emotion, level, take), or a sentence that says why it is no clip."""
    name = Path(parts[-1])
    suffix = name.suffix.lower()
    if suffix not in VIDEO_SUFFIXES and suffix not in AUDIO_SUFFIXES:
        return f"a {suffix or 'suffixless'} file, not media"
    if len(parts) < 4:
        return "not in <view>/<emotion>/level_<n>/ or audio/<emotion>/level_<n>/"
    kind, emotion, level_name = parts[-4], parts[-3], parts[-2]
    if kind not in VIEWS and kind != "audio":
        return "not in <view>/<emotion>/level_<n>/ or audio/<emotion>/level_<n>/"
    if (kind == "audio") != (suffix in AUDIO_SUFFIXES):
        return f"a {suffix} file under {kind}/"
    if emotion not in DATASET_LABELS["mead"]:
        return f"emotion folder {emotion!r} is none of MEAD's eight"
    level = _LEVEL.fullmatch(level_name)
    if level is None:
        return f"level folder {level_name!r} is not level_1 to level_3"
    if not _NUMBER.fullmatch(name.stem):
        return f"file name {name.name!r} is not a three-digit number"
    for folder in (*reversed(parts[:-4]), root_name):
        if actor := _ACTOR.fullmatch(folder):
            return actor.group(1), None if kind == "audio" else kind, emotion, level.group(1), name.stem
    return "actor unknown: no folder above is named like M003 or W011-1; rename the folder after its actor"


def _with_sound(clip: Clip, sounds: dict, used: set) -> Clip:
    key = (clip.speaker, str(clip.emotion), str(clip.intensity), clip.take)
    used.add(key)
    sound: Found | None = sounds.get(key)
    if sound is None:
        return clip
    return dataclasses.replace(clip, audio=sound.source)
