"""Adds C-MET and CEM-Net to the suite as methods: each method turns the inputs of a case into a video.

The classes have all members of the interface `cmet_baselines.method.Method`, but this file does not import that module.
The checkpoints are stored next to the data. Each use of a method searches for the checkpoints again, so that a newly
trained checkpoint is found. `revision` is a digest of the checkpoint files and of the renderer's revision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from cmet_reference.departures import Config, departures_of, nearest_config
from cmet_reference.geometry import fit_pose, template_of, to_head, to_picture
from cmet_reference.render.base import Renderer
from cmet_reference.render.mesh import MeshRenderer
from cmet_reference.training import checkpoints
from cmet_reference.training.checkpoints import TrainedOn
from talking_face.pretrained.model_files import ModelFiles
from talking_face.pretrained.store import MissingWeights
from talking_face.reasons import UserError
from talking_face.signature import digest

if TYPE_CHECKING:
    from cmet_reference.cem_net.generate import CemNetFace
    from cmet_reference.cem_net.label_lookup import LabelLookupFace
    from cmet_reference.cem_net.lips_only import LipsOnlyFace
    from cmet_reference.cmet.generate import CMetFace
    from cmet_reference.cmet.speech import Utterances


class Case(Protocol):
    """The members of `cmet_baselines.method.Case` that the models use."""

    @property
    def n_frames(self) -> int: ...
    @property
    def reference_frames(self) -> np.ndarray: ...
    @property
    def reference_landmarks(self) -> np.ndarray: ...
    @property
    def source_frames(self) -> np.ndarray: ...
    @property
    def source_landmarks(self) -> np.ndarray: ...
    @property
    def source_blendshapes(self) -> np.ndarray: ...
    @property
    def size(self) -> tuple[int, int]: ...
    @property
    def source_audio(self) -> np.ndarray: ...
    @property
    def source_clip(self) -> np.ndarray: ...
    @property
    def ground_truth_landmarks(self) -> np.ndarray: ...
    @property
    def driving_audio(self) -> np.ndarray: ...
    @property
    def target_emotion(self) -> str: ...
    @property
    def emotion_audio(self) -> list[np.ndarray]: ...
    @property
    def emotion_clips(self) -> np.ndarray: ...
    @property
    def neutral_clips(self) -> np.ndarray: ...
    @property
    def neutral_audio(self) -> list[np.ndarray]: ...
    def note(self, text: str) -> None: ...


class TrainedMethod:
    """A method whose weights are checkpoints of this package.

    The face is drawn over the source video. If the source video is longer than the output, the rest of it is ignored.
    If the source video is too short, its last frame is repeated.
    """

    name: str
    files: tuple[str, ...]  # names of the method's checkpoints; see `stages`
    paper_title = ""  # name of the model in its paper; "" for methods that are not the whole model

    def __init__(self, model_files: ModelFiles) -> None:
        self._model_files = model_files

    def stages(self) -> tuple[str, ...]:
        """The names of the checkpoints that are used. Subclasses can override this."""
        return self.files

    def _find(self, stage: str) -> Path:
        return checkpoints.find(stage, self._model_files)

    def paths(self) -> list[Path]:
        """Paths of the method's checkpoints, and of the earlier checkpoints that were used to train these checkpoints.

        Raises:
            MissingWeights: a checkpoint does not exist yet.
            UserError: a checkpoint was trained with an earlier checkpoint whose file has changed since then.
        """
        found = {name: self._find(name) for name in self.stages()}
        for name in self.stages():
            for earlier, wanted in _header(*_stamp(found[name])).get("built_on", {}).items():
                path = found.setdefault(earlier, self._find(earlier))
                if (here := _revision(*_stamp(path))) != wanted:
                    again = checkpoints.command(name)
                    raise UserError(
                        f"{found[name]} was trained with {earlier} {wanted}, found is {here}; run `{again}`"
                    )
        return list(found.values())

    @property
    def revision(self) -> str:
        """A digest of the checkpoints and the renderer, 12 hexadecimal digits."""
        return digest([*(_revision(*_stamp(path)) for path in self.paths()), self._drawn_by()], 12)

    @property
    def trained_on(self) -> frozenset[str]:
        """Ids of all clips with which any of the checkpoints was trained."""
        return frozenset().union(*(_header(*_stamp(path)).get("clips", ()) for path in self.paths()))

    def about(self) -> dict[str, object]:
        """The facts of the method's record that depend on its checkpoints: title and differences from the paper.

        The title is the name in the paper only if every checkpoint was trained with the settings `paper`. It is {} for
        methods that are not the whole model.
        """
        if not self.paper_title:
            return {}
        configs = {name: self._config_of(name) for name in self.stages()}
        topics = [
            d.topic
            for name, config in configs.items()
            for d in departures_of(checkpoints.model_of(name), [name], config)
        ]
        as_published = {*configs.values()} == {"paper"}
        title = self.paper_title if as_published else f"{self.paper_title}, adapted"
        return {"title": title, "departures": [*dict.fromkeys(topics)]}

    def _config_of(self, stage: str) -> Config:
        """The settings whose differences from the paper a checkpoint has."""
        return nearest_config(stage, _header(*_stamp(self._find(stage))).get("config", {}))

    def _drawn_by(self) -> str:
        """The revision of what draws the pictures."""
        return self.renderer().revision

    def renderer(self) -> Renderer:
        """The mesh renderer, with the trained appearance model if the method has one; subclasses can override this."""
        if "appearance" not in self.stages():
            return MeshRenderer()
        return _mesh(_stamp(self._find("appearance")), _stamp(self._find("skin")))

    def generate(self, case: Case) -> np.ndarray:
        """The video of a case, (n_frames, H, W, 3) uint8 RGB."""
        n, given = case.n_frames, len(case.source_landmarks)
        _note_length(case, given)
        held = np.minimum(np.arange(n), given - 1)
        base, points = case.source_frames[held], case.source_landmarks[held]
        landmarks = self.landmarks(case, points)
        return self.renderer().frames(landmarks, case.reference_frames, case.reference_landmarks, base, points)

    def landmarks(self, case: Case, base: np.ndarray) -> np.ndarray:
        """The landmarks to draw, (n_frames, 478, 3) px.

        Args:
            base: (n_frames, 478, 3) px, the landmarks of the source frames over which the face is drawn.
        """
        raise NotImplementedError


class CMet(TrainedMethod):
    """C-MET: changes the source video's expression along the direction from neutral to emotional speech.

    The codec of the checkpoint determines which other checkpoints are needed, and what draws the pictures. The codecs
    EDTalk and PD-FGC draw the pictures themselves.
    """

    name = "cmet"
    paper_title = "C-MET"
    files = ("cmet",)
    sees = frozenset({"reference-frames", "source-video", "driving-audio", "emotion-audio", "neutral-audio"})

    def stages(self) -> tuple[str, ...]:
        from cmet_reference.cmet.codec import NEEDED_STAGES

        return (*self.files, *NEEDED_STAGES.get(str(self._record()["codec"]), ()))

    def generate(self, case: Case) -> np.ndarray:
        from cmet_reference.cmet.codec import Face

        if not self._draws_itself():
            return super().generate(case)
        _note_length(case, len(case.source_frames))
        video = self._face().video(
            case.driving_audio,
            Face(case.source_frames, None, case.source_blendshapes),
            *self._heard(case),
            case.n_frames,
            Face(case.reference_frames),
        )
        return _resized(video, case)

    def landmarks(self, case: Case, base: np.ndarray) -> np.ndarray:
        from cmet_reference.cmet.codec import Face

        source = Face(None, case.source_landmarks, case.source_blendshapes)
        return self._face().landmarks(case.driving_audio, source, *self._heard(case), case.n_frames)

    def _heard(self, case: Case) -> tuple[Utterances, Utterances, Utterances]:
        """The pools of the target emotion and of neutral speech, and the source video's own utterance."""
        from cmet_reference.cmet.speech import Utterances

        return (
            Utterances(case.emotion_audio, [str(i) for i in case.emotion_clips]),
            Utterances(case.neutral_audio, [str(i) for i in case.neutral_clips]),
            Utterances([case.source_audio], [str(i) for i in case.source_clip]),
        )

    def _face(self) -> CMetFace:
        return _cmet(tuple(_stamp(path) for path in self.paths()), self._model_files)

    def _config_of(self, stage: str) -> Config:
        return "paper" if stage == "cmet" and "imported" in self._record() else super()._config_of(stage)

    def _record(self) -> Mapping[str, object]:
        return _record(*_stamp(self._find("cmet")))

    def _draws_itself(self) -> bool:
        return "appearance" not in self.stages()

    def _drawn_by(self) -> str:
        if not self._draws_itself():
            return super()._drawn_by()
        from cmet_reference.cmet.train import codec_revision

        return codec_revision(str(self._record()["codec_setting"]), self._model_files)


class CemNet(TrainedMethod):
    """CEM-Net: predicts lips and jaw from the audio, then adds the emotion of the audio, with the help of a memory.

    If the memory was trained with the settings `paper`, the flow renderer draws the pictures, else the mesh renderer.
    """

    name = "cem-net"
    paper_title = "CEM-Net"
    files: tuple[str, ...] = ("audio2mouth", "aee", "ebm", "appearance", "skin")
    sees = frozenset({"reference-frames", "source-video", "driving-audio"})

    def landmarks(self, case: Case, base: np.ndarray) -> np.ndarray:
        face = _cem_net(tuple(_stamp(path) for path in self.paths()), self._model_files)
        return face.landmarks(case.driving_audio, case.reference_landmarks, base, case.n_frames, case.reference_frames)

    def stages(self) -> tuple[str, ...]:
        try:
            net = _record(*_stamp(self._find("ebm")))["net"]
        except MissingWeights:
            return self.files
        files = CemNetFlow.files if self._config_of("ebm") == "paper" else self.files
        assert isinstance(net, dict)
        encoder = (str(net["audio"]),) if net["audio_emotion"] else ()
        return tuple(new for name in files for new in (encoder if name == "aee" else (name,)))

    def renderer(self) -> Renderer:
        return _flow(_stamp(self._find("renderer"))) if "renderer" in self.stages() else super().renderer()


class LabelLookup(TrainedMethod):
    """A control: CEM-Net with a table of the mean displacement of each emotion label in place of its memory."""

    name = "label-lookup"
    # `aee` draws nothing here, but the memory, whose table is used, was trained with it.
    files: tuple[str, ...] = ("audio2mouth", "aee", "ebm", "appearance", "skin")
    sees = frozenset({"reference-frames", "source-video", "driving-audio", "emotion-label"})

    def landmarks(self, case: Case, base: np.ndarray) -> np.ndarray:
        face = _label_lookup(tuple(_stamp(path) for path in self.paths()), self._model_files)
        face.label = case.target_emotion
        return face.landmarks(case.driving_audio, case.reference_landmarks, base, case.n_frames, case.reference_frames)


class CemNetFlow(CemNet):
    """CEM-Net with its own flow renderer instead of the mesh renderer, whatever its settings."""

    name = "cem-net-flow"
    files = ("audio2mouth", "aee", "ebm", "renderer")

    def about(self) -> dict[str, object]:
        facts = super().about()
        return facts if facts["title"] == self.paper_title else {**facts, "title": f"{facts['title']}, flow renderer"}


class LipsOnly(TrainedMethod):
    """CEM-Net's first stage alone: lips and jaw from sound on the source's upper face, drawn by the mesh renderer."""

    name = "lips-only"
    files: tuple[str, ...] = ("audio2mouth",)
    sees = frozenset({"reference-frames", "source-video", "driving-audio"})

    def landmarks(self, case: Case, base: np.ndarray) -> np.ndarray:
        face = _lips_only(_stamp(self._find("audio2mouth")))
        return face.landmarks(case.driving_audio, case.reference_landmarks, base, case.n_frames)


class LipsOnlyFlow(LipsOnly):
    """CEM-Net's first stage alone, drawn by the flow renderer."""

    name = "lips-only-flow"
    files = ("audio2mouth", "renderer")

    def renderer(self) -> Renderer:
        return _flow(_stamp(self._find("renderer")))


class GroundTruthFace(TrainedMethod):
    """Draws the face of the ground truth on the source video, in the head pose of the source video.

    This method is a control, because it reads the ground truth. Its score is the upper bound for all models that
    predict landmarks and draw these landmarks with the mesh renderer.
    """

    name = "ground-truth-face"
    files = ("appearance", "skin")
    sees = frozenset({"ground-truth", "reference-frames", "source-video"})

    def landmarks(self, case: Case, base: np.ndarray) -> np.ndarray:
        real = case.ground_truth_landmarks
        real = real[np.minimum(np.arange(case.n_frames), len(real) - 1)]
        template = template_of(case.reference_landmarks)
        return to_picture(to_head(real, fit_pose(real, template)), fit_pose(base, template))


def _note_length(case: Case, given: int) -> None:
    """Notes that a source video of `given` frames is longer or shorter than the output."""
    n = case.n_frames
    if given != n:
        change = f"cut from {given} to {n} frames" if given > n else f"last of {given} frames held to {n}"
        case.note(f"cut-or-hold-last: {change}")


def _resized(video: np.ndarray, case: Case) -> np.ndarray:
    """The video, (T, h, w, 3), in the size of the case's pictures, (T, H, W, 3). Another size is noted."""
    height, width = case.size
    if video.shape[1:3] == (height, width):
        return video
    import cv2

    case.note(f"resized: from {video.shape[2]}x{video.shape[1]} to {width}x{height} px")
    rule = cv2.INTER_AREA if height < video.shape[1] else cv2.INTER_CUBIC
    return np.stack([cv2.resize(frame, (width, height), interpolation=rule) for frame in video])


# Cache of loaded files -----------------------------------------------------------------------------------------------

Stamp = tuple[Path, int, int]  # path, modification time in ns, size in bytes; a rewritten file has another stamp


def _stamp(path: Path) -> Stamp:
    status = path.stat()
    return path, status.st_mtime_ns, status.st_size


@lru_cache(maxsize=64)
def _revision(path: Path, _time: int, _size: int) -> str:
    return checkpoints.revision(path)


@lru_cache(maxsize=64)
def _record(path: Path, _time: int, _size: int) -> Mapping[str, object]:
    return checkpoints.record_of(path)


@lru_cache(maxsize=64)
def _header(path: Path, _time: int, _size: int) -> TrainedOn:
    return checkpoints.trained_on(path)


@lru_cache(maxsize=2)
def _cmet(stamps: Sequence[Stamp], files: ModelFiles) -> CMetFace:
    from cmet_reference.cmet.generate import CMetFace
    from talking_face.pretrained.torch_nets import device

    return CMetFace(stamps[0][0].parent, device=device(), files=files)


@lru_cache(maxsize=2)
def _cem_net(stamps: Sequence[Stamp], files: ModelFiles) -> CemNetFace:
    from cmet_reference.cem_net.generate import CemNetFace
    from talking_face.pretrained.torch_nets import device

    return CemNetFace(stamps[0][0].parent, device=device(), files=files)


@lru_cache(maxsize=2)
def _label_lookup(stamps: Sequence[Stamp], files: ModelFiles) -> LabelLookupFace:
    from cmet_reference.cem_net.label_lookup import LabelLookupFace
    from talking_face.pretrained.torch_nets import device

    return LabelLookupFace(stamps[0][0].parent, device(), files=files)


@lru_cache(maxsize=2)
def _lips_only(stamp: Stamp) -> LipsOnlyFace:
    from cmet_reference.cem_net.lips_only import LipsOnlyFace
    from talking_face.pretrained.torch_nets import device

    return LipsOnlyFace(stamp[0], device())


@lru_cache(maxsize=2)
def _mesh(appearance: Stamp, skin: Stamp) -> Renderer:
    from cmet_reference.render.skin_stage import corrected

    return MeshRenderer(expression=corrected(appearance[0], skin[0]))


@lru_cache(maxsize=2)
def _flow(stamp: Stamp) -> Renderer:
    from cmet_reference.render.flow import FlowRenderer
    from talking_face.pretrained.torch_nets import device

    return FlowRenderer(stamp[0], device())
