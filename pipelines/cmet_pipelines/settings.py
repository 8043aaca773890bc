"""What preprocessing is asked to do; what of it changes the content stands in the shard set's signature."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from cmet_pipelines import lists
from cmet_pipelines.frames_codec import DEFAULT_CODEC, get_codec
from cmet_pipelines.readers.base import ReaderOptions
from talking_face.faces.align import ALIGN_MODES, align_mode
from talking_face.faces.crop import ENLARGE
from talking_face.pretrained.store import weight_hash
from talking_face.signature import Signature

VERSION = "1.2.0"  # of the processing: raised when the same settings give other content

_SIZE = 256  # px, of modes that have no size of their own

# These say how a run is done, not what comes out of it.
_NOT_CONTENT = {"deadline_s", "labels"}


class PreprocessSettings(BaseModel):
    """Settings of one shard set. `signature` names the content; see docs/shards.md."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    fps: float = Field(default=25.0, gt=0, le=120, description="frames/s of the shards")
    align: str = Field(default="box", description="how the face is cut out, talking_face.faces.align")
    size: int = Field(
        default=None, validate_default=True, ge=16, le=2048, description="side of the crop, px; the mode's own, or 256"
    )
    enlarge: float = Field(default=ENLARGE, ge=1.0, le=4.0, description="the crop's side over the face's extent")
    codec: str = Field(default=DEFAULT_CODEC, description="encoding of frames, cmet_pipelines.frames_codec")
    require_audio: bool = Field(default=True, description="a clip without sound is dropped")
    min_frames: int = Field(default=5, ge=1, description="a shorter clip is dropped")
    max_seconds: float = Field(default=600.0, gt=0, description="a longer clip is dropped")
    min_valid_fraction: float = Field(default=0.5, ge=0, le=1, description="share of frames that must show a face")
    view: str = Field(default="front", description="camera view, or all")
    split: str = Field(default="auto", description="named split preset, auto or none")
    labels: Path | None = Field(default=None, description="clips: CSV of labels; meld: folder of its CSVs")
    numbering: str | None = Field(default=None, description="MEAD: scheme by which file numbers name sentences")
    emotion_label: Literal["intended", "voted"] = Field(default="intended", description="CREMA-D: whose label")
    subset: Literal["all", "main", "pretrain"] = Field(default="all", description="LRS2: which part")
    defects: bool = Field(default=True, description="leave out the clips of pipelines/cmet_pipelines/defects")
    clips: str | None = Field(default=None, description="named list of clips, or a CSV of one; only these are taken")
    deadline_s: float = Field(default=300.0, gt=0, description="wall time after which a clip is given up, s")

    @field_validator("align")
    @classmethod
    def _known_mode(cls, name: str) -> str:
        return align_mode(name).name

    @field_validator("size", mode="before")
    @classmethod
    def _size_of_mode(cls, size: Any, info: ValidationInfo) -> Any:
        mode = ALIGN_MODES.get(info.data.get("align", "box"))
        own = mode.size if mode else None
        if own and size not in (None, own):
            raise ValueError(f"align mode {info.data['align']} is {own} px, leave the size out")
        return own or size or _SIZE

    @field_validator("codec")
    @classmethod
    def _known_codec(cls, name: str) -> str:
        get_codec(name)
        return name

    def reader_options(self) -> ReaderOptions:
        """What of these settings is said to the dataset's reader."""
        names = ("view", "labels", "numbering", "emotion_label", "subset", "defects")
        return ReaderOptions(**{name: getattr(self, name) for name in names})

    def content(self) -> dict[str, Any]:
        """The settings that change what is computed, JSON-ready, with the networks' hashes."""
        values = {key: value for key, value in self.model_dump(mode="json").items() if key not in _NOT_CONTENT}
        for name in ("clips", "numbering"):  # a file counts by what is in it
            values[name] = values[name] and lists.identity(values[name])
        if align_mode(self.align).points == "dlib68":
            values["dlib_68"] = weight_hash("dlib_68")
        return values | {"version": VERSION, "face_landmarker": weight_hash("face_landmarker")}

    def signature(self) -> Signature:
        """How the clips' content was made: equal signatures mean that clips of two shard sets can be mixed."""
        return Signature(
            "shards",
            {
                "fps": f"{self.fps:g}",
                "crop": self._crop_token(),
                "codec": self.codec,
                "points": f"mp478@{weight_hash('face_landmarker')[:8]}",
                "audio": "16000-mono" + ("" if self.require_audio else "-optional"),
                "faces": f"{self.min_valid_fraction:g}",
                "frames": f"{self.min_frames}-{self.max_seconds:g}s",
                "version": VERSION,
            },
        )

    def _crop_token(self) -> str:
        mode = align_mode(self.align)
        if self.align == "box":
            return f"box-{self.enlarge:g}-{self.size}"
        if mode.points == "dlib68":
            return f"{mode.name}@{weight_hash('dlib_68')[:8]}"
        return mode.name if mode.size else f"{mode.name}-{self.size}"
