"""CEM-Net's stages from configuration, in training order: Audio2Mouth, AEE, EBM, what the mesh renderer learns
(`appearance` and `skin`, which C-MET draws with too), and the flow renderer where the settings have it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cmet_pipelines.shards import ShardSet
from cmet_reference.cem_net import aee, audio2mouth, ebm
from cmet_reference.cem_net.aee_stage import AeeSettings, AeeStage
from cmet_reference.cem_net.audio2mouth_stage import Audio2MouthSettings, Audio2MouthStage
from cmet_reference.cem_net.ebm_stage import EbmSettings, EbmStage
from cmet_reference.clips import ClipArrays, read_clips, read_held_out
from cmet_reference.render import appearance_stage, flow, skin, skin_stage
from cmet_reference.render.appearance_stage import AppearanceSettings, AppearanceStage
from cmet_reference.render.skin_stage import SkinSettings, SkinStage
from talking_face.pretrained.model_files import ModelFiles
from talking_face.reasons import UserError

# In training order.
STAGES = (audio2mouth.KIND, aee.KIND, ebm.KIND, appearance_stage.KIND, skin_stage.KIND, "renderer")


def stages(
    config: Mapping[str, Any],
    folders: Mapping[str, Path],
    out: Path,
    seed: int = 0,
    quiet: bool = True,
    files: ModelFiles | None = None,
) -> list[Callable[[], Any] | None]:
    """What `cmet-eval train cem-net` trains; None where the settings leave a stage out.

    Audio2Mouth, the renderer and the text of AEE learn from the shard set called `lrs2` where there is one, as in the
    paper, and from the main one otherwise; all else from the main one (and any other).
    """
    felt = [folder for name, folder in folders.items() if name != "lrs2"]
    spoken = [folders["lrs2"]] if "lrs2" in folders else felt

    def split(where: Sequence[Path]) -> tuple[list[ClipArrays], list[ClipArrays]]:
        return read_clips(where, quiet=quiet), read_held_out(where, quiet=quiet)

    def first() -> Audio2MouthStage:
        net, settings = _settings(config, "audio2mouth")
        return Audio2MouthStage(net, settings, *split(spoken), seed)

    def second() -> AeeStage:
        train, test = split(felt)
        if "lrs2" in folders:
            train = train + read_clips(spoken, quiet=quiet)
        net, settings, weights = _settings(config, "aee")
        return AeeStage(net, settings, weights, train, test, seed, transcripts_of({c.folder for c in train}))

    def third() -> EbmStage:
        mouths = audio2mouth.load(out / "audio2mouth.safetensors")
        net, settings, weights = _settings(config, "ebm")
        ears = aee.load(out / "aee.safetensors") if net.audio_emotion else None
        return EbmStage(net, settings, weights, mouths, ears, *split(felt), seed, files)

    def fourth() -> AppearanceStage:
        (settings,) = _settings(config, "appearance")
        return AppearanceStage(settings, *split(felt), seed, quiet, files)

    def fifth() -> SkinStage:
        net, settings = _settings(config, "skin")
        appearance = appearance_stage.load(out / "appearance.safetensors")
        return SkinStage(net, settings, appearance, *split(felt), seed, quiet)

    def sixth() -> Any:
        return flow.stage(config["renderer"], *split(spoken), seed, files)

    return [first, second, third, fourth, fifth, sixth if "renderer" in config else None]


def transcripts_of(folders: Iterable[Path]) -> dict[str, str]:
    """Texts of the clips that have one, by id."""
    out: dict[str, str] = {}
    for folder in sorted(folders):
        rows = ShardSet(folder).clips
        told = rows["transcript"]
        out |= {str(k): v for k, v in zip(rows["clip_id"], told, strict=True) if isinstance(v, str) and v.strip()}
    return out


_TABLES: dict[str, tuple[Any, Any, Any]] = {
    "audio2mouth": (audio2mouth.Settings, Audio2MouthSettings, None),
    "aee": (aee.Settings, AeeSettings, aee.Weights),
    "ebm": (ebm.Settings, EbmSettings, ebm.Weights),
    "appearance": (None, AppearanceSettings, None),
    "skin": (skin.Settings, SkinSettings, None),
}


def _settings(config: Mapping[str, Any], name: str) -> list[Any]:
    """A stage's table: the network's settings (in `net`), the training's, and the losses' weights (in `weights`)."""
    table: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in config[name].items()}
    own = [table.pop("net", {}), table, table.pop("weights", {})]
    try:
        return [kind(**values) for kind, values in zip(_TABLES[name], own, strict=True) if kind]
    except TypeError as error:
        raise UserError(f"[{name}] has a field that is none ({error})") from None
