"""Defines the settings of preprocessing that apply to every dataset, and the signature of the resulting content.

Options that apply to one dataset are declared by the dataset's reader in `cmet_pipelines.readers`.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from cmet_pipelines import lists
from cmet_pipelines.frames_codec import DEFAULT_CODEC, get_codec
from cmet_pipelines.readers.base import ReaderOptions
from talking_face.faces.align import ALIGN_MODES, WHOLE, align_mode
from talking_face.faces.crop import ENLARGE
from talking_face.pretrained.face_landmarker import landmarker_tag, mediapipe_suffix
from talking_face.pretrained.store import registered_hash
from talking_face.signature import Signature

VERSION = "1.3.0"  # version of the processing: increase it when the same settings give other content

# s, default deadline until the headers of a clip are read: its files are hashed before, from a network disk at 20 MB/s.
OPENING_S = 300.0
_SIZE = 256  # side of the crop, px, for align modes without a fixed size
_SMALLEST, _LARGEST = 16, 2048  # sides of a crop, px

# Reader options with their default values. `content` includes these values for every dataset, even if the dataset's
# reader does not have the option. Do not change the values, because the digests of existing shard sets include them.
_IN_EVERY_SET: Mapping[str, object] = {"view": "front", "numbering": None, "emotion_label": "intended", "subset": "all"}


class ProcessingSettings(BaseModel):
    """Settings for the processing of clips. docs/reference/shards.md explains their signature."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    fps: float = Field(default=25.0, gt=0, le=120, description="frames/s of the shards")
    align: str = Field(
        default="box",
        description=f"how the face is cut out: {', '.join(ALIGN_MODES)}; none keeps whole pictures, each at its size",
    )
    size: int = Field(
        default=None,
        validate_default=True,
        description=f"side of the face crop, px; {_SIZE} where the align mode has no size of its own",
    )
    enlarge: float = Field(default=ENLARGE, ge=1.0, le=4.0, description="the crop's side over the face's extent")
    codec: str = Field(default=DEFAULT_CODEC, description="encoding of frames; docs/reference/shards.md compares them")
    require_audio: bool = Field(default=True, description="drop clips without sound")
    min_frames: int = Field(default=5, ge=1, le=1_000_000, description="shortest clip that is kept, frames")
    max_seconds: float = Field(default=600.0, gt=0, le=86_400, description="longest clip that is kept, s")
    min_valid_fraction: float = Field(
        default=0.5, ge=0, le=1, description="share of frames that must show a face, 0 to 1"
    )
    split: str = Field(default="auto", description="named split by speaker, auto or none")
    defects: bool = Field(default=True, description="leave out clips that are known to be bad")
    clips: str | None = Field(
        default=None, description="take only these: a named list, or a CSV with the column clip_id"
    )
    deadline_s: float | None = Field(
        default=None, gt=0, description="seconds after which a clip is given up; follows from its length and align mode"
    )

    @field_validator("align")
    @classmethod
    def _known_mode(cls, name: str) -> str:
        return align_mode(name).name

    @field_validator("size", mode="before")
    @classmethod
    def _size_of_mode(cls, size: object, info: ValidationInfo) -> object:
        mode = ALIGN_MODES.get(info.data.get("align", "box"))
        own = mode.size if mode else None
        if own is None:
            return _SIZE if size is None else size
        if size not in (None, own):
            kept = "keeps each picture's own size" if own == WHOLE else f"is {own} px"
            raise ValueError(f"align mode {info.data['align']} {kept}, leave the size out")
        return own

    @field_validator("size")
    @classmethod
    def _size_in_range(cls, size: int, info: ValidationInfo) -> int:
        whole = info.data.get("align") in ALIGN_MODES and ALIGN_MODES[info.data["align"]].whole
        if not whole and not _SMALLEST <= size <= _LARGEST:
            raise ValueError(f"it should be {_SMALLEST} to {_LARGEST} px")
        return size

    @field_validator("codec")
    @classmethod
    def _known_codec(cls, name: str) -> str:
        get_codec(name)
        return name

    def content(self, dataset: str, options: ReaderOptions) -> dict[str, object]:
        """All values that determine the content of a shard set, JSON-ready: settings, reader options, network hashes.

        Args:
            dataset: a reader's name.
            options: options of that reader.
        """
        values: dict[str, object] = self.model_dump(mode="json", exclude={"deadline_s", "split", "defects", "clips"})
        of_reader = {**_IN_EVERY_SET, **options.content()}
        values |= {"view": of_reader.pop("view"), "split": self.split, **of_reader, "defects": self.defects}
        values["clips"] = self.clips and lists.identity(self.clips)
        if align_mode(self.align).points == "dlib68":
            values["dlib_68"] = registered_hash("dlib_68")
        own = {"version": VERSION, "face_landmarker": registered_hash("face_landmarker") + mediapipe_suffix()}
        return {**values, **own, "dataset": dataset}

    def signature(self) -> Signature:
        """States how the clips were processed. Clips of two shard sets can be mixed if the signatures are equal."""
        return Signature(
            "shards",
            {
                "fps": f"{self.fps:g}",
                "crop": self._crop_token(),
                "codec": self.codec,
                "points": f"mp478@{landmarker_tag()}",
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
            return f"{mode.name}@{registered_hash('dlib_68')[:8]}"
        return f"{mode.name}-{self.size}" if mode.size is None else mode.name
