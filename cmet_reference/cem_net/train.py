"""Creates CEM-Net's training stages from the settings, in training order.

The first stages are Audio2Mouth, AEE and EBM. Before EBM, a plain emotion classifier is trained if EBM uses it in place
of AEE (`[ebm.net] audio = "emotion-classifier"`). Then come `appearance` and `skin`, two networks of the mesh
renderer, which C-MET uses too. The last stage is the flow renderer, if the settings have the table `renderer`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cmet_pipelines.shards import ShardSet
from cmet_reference.cem_net import aee, aee_settings, audio2mouth, classifier, ebm, sentences
from cmet_reference.cem_net.aee_stage import AeeSettings, AeeStage
from cmet_reference.cem_net.audio2mouth_stage import Audio2MouthSettings, Audio2MouthStage
from cmet_reference.cem_net.ebm_stage import EbmSettings, EbmStage, FixedNetworks
from cmet_reference.clips import ClipArrays, read_clips, read_held_out
from cmet_reference.render import appearance_stage, flow_stage, skin, skin_stage
from cmet_reference.render.appearance_stage import AppearanceSettings, AppearanceStage
from cmet_reference.render.skin_stage import SkinSettings, SkinStage
from cmet_reference.training.config import settings_of
from cmet_reference.training.models import StageFactory
from cmet_reference.training.options import TrainOptions
from cmet_reference.training.runtime import resolved
from talking_face.pretrained.model_files import ModelFiles

Config = Mapping[str, Any]  # all settings of the model: a table per stage, as TOML gives them

# The names of the stages, in training order.
STAGES = (
    audio2mouth.KIND,
    aee.KIND,
    classifier.KIND,
    ebm.KIND,
    appearance_stage.KIND,
    skin_stage.KIND,
    flow_stage.KIND,
)


def stages(
    config: Config,
    folders: Mapping[str, Path],
    out: Path,
    options: TrainOptions,
    files: ModelFiles,
) -> list[StageFactory | None]:
    """The stage factories of `cmet-eval train cem-net`; None for a stage without settings.

    If there is a shard set called `lrs2`, then Audio2Mouth and the flow renderer learn from it alone, as in the paper.
    AEE learns from `lrs2` and from all other shard sets, because its text task needs transcripts. The other stages
    learn from all shard sets except `lrs2`.
    """
    seed, quiet, most = options.seed, options.quiet, options.most_clips
    emotional, speech = sources_of(folders)

    _check(config)

    def split(where: Sequence[Path]) -> tuple[list[ClipArrays], list[ClipArrays]]:
        return read_clips(where, quiet=quiet, most=most), read_held_out(where, quiet=quiet, most=most)

    def make_audio2mouth() -> Audio2MouthStage:
        net, settings = stage_settings(config, "audio2mouth")
        return Audio2MouthStage(net, settings, *split(speech), seed)

    def make_aee() -> AeeStage:
        train, test = split(emotional)
        if "lrs2" in folders:
            train = train + read_clips(speech, quiet=quiet, most=most)
        net, settings, weights = stage_settings(config, "aee")
        return _aee_stage((net, settings, weights), train, test, out, seed, quiet)

    def make_classifier() -> classifier.ClassifierStage:
        net, settings, _ = stage_settings(config, "aee")
        return classifier.ClassifierStage(net, settings, *split(emotional), seed)

    def make_ebm() -> EbmStage:
        device = resolved(options.device)
        mouths = audio2mouth.load(out / "audio2mouth.safetensors").to(device)
        net, settings, weights = stage_settings(config, "ebm")
        encoder = classifier.load(net.audio, out).to(device) if net.audio_emotion else None
        fixed = FixedNetworks(mouths, encoder, files, keep=most is None)
        return EbmStage(net, settings, weights, fixed, *split(emotional), seed)

    def make_appearance() -> AppearanceStage:
        (settings,) = stage_settings(config, "appearance")
        return AppearanceStage(settings, *split(emotional), seed, quiet, files=files)

    def make_skin() -> SkinStage:
        net, settings = stage_settings(config, "skin")
        appearance = appearance_stage.load(out / "appearance.safetensors")
        return SkinStage(net, settings, appearance, *split(emotional), seed, quiet)

    def make_renderer() -> flow_stage.RendererStage:
        return flow_stage.make_stage(config["renderer"], *split(speech), seed, files=files)

    network = config.get("ebm", {}).get("net", {})
    wanted = {*config, *([classifier.KIND] if network.get("audio") == classifier.KIND else [])}
    made: list[StageFactory] = [make_audio2mouth, make_aee, make_classifier, make_ebm, make_appearance, make_skin]
    return [factory if name in wanted else None for name, factory in zip(STAGES, [*made, make_renderer], strict=True)]


def _check(config: Config) -> None:
    """Raises UserError for a wrong value of any stage, before the first stage is trained."""
    for name in _TABLES.keys() & config.keys():
        stage_settings(config, name)
    if "aee" in config:
        sentences.check_sources(stage_settings(config, "aee")[1].sentences)
    if "renderer" in config:
        flow_stage.read_settings(config["renderer"])


def sources_of(folders: Mapping[str, Path]) -> tuple[list[Path], list[Path]]:
    """The shard sets with emotions, and the shard sets for Audio2Mouth and the flow renderer.

    The second list is the set `lrs2`, or the first list if there is no set with this name.
    """
    emotional = [folder for name, folder in folders.items() if name != "lrs2"]
    return emotional, [folders["lrs2"]] if "lrs2" in folders else emotional


def _aee_stage(
    settings: tuple[aee_settings.AeeNetSettings, AeeSettings, aee_settings.AeeLossWeights],
    train: Sequence[ClipArrays],
    test: Sequence[ClipArrays],
    out: Path,
    seed: int,
    quiet: bool,
) -> AeeStage:
    """The stage of AEE, with the sentences of its clips. It prints how many sentences and combinations are known.

    Args:
        settings: of the network, of the training, and the weights of the losses.
    """
    net, how, weights = settings
    say = (lambda line: None) if quiet else sentences.say
    found = sentences.find(train, how.sentences, how.sound_error, out / "aee.sentences.json", say)
    clips = sentences.named(train, found)
    stage = AeeStage(net, how, weights, clips, test, seed, transcripts_of({c.folder for c in clips}))
    for line in (*found.notes, _crossed(stage, found)):
        say(line)
    return stage


def _crossed(stage: AeeStage, found: sentences.Found) -> str:
    """One line about the sentences of the clips and the share of the crossed combinations."""
    about = stage.about()
    sources = ", ".join(f"{source} {count}" for source, count in found.counts.items())
    return (
        f"{about['clips_with_sentence']} of {about['clips_with_emotion']} clips have a sentence ({sources}); "
        f"{stage.crossed:.0%} of the crossed combinations of voice, emotion and sentence exist as clips"
    )


def transcripts_of(folders: Iterable[Path]) -> dict[str, str]:
    """The transcripts by clip id, for the clips that have a transcript."""
    out: dict[str, str] = {}
    for folder in sorted(folders):
        rows = ShardSet(folder).clips
        pairs = zip(rows["clip_id"], rows["transcript"], strict=True)
        out |= {str(k): v for k, v in pairs if isinstance(v, str) and v.strip()}
    return out


# The settings classes of each stage: for the network, for the training and for the weights of the losses.
_TABLES: Mapping[str, tuple[type | None, type, type | None]] = {
    "audio2mouth": (audio2mouth.Audio2MouthNetSettings, Audio2MouthSettings, None),
    "aee": (aee_settings.AeeNetSettings, AeeSettings, aee_settings.AeeLossWeights),
    "ebm": (ebm.EbmNetSettings, EbmSettings, ebm.EbmLossWeights),
    "appearance": (None, AppearanceSettings, None),
    "skin": (skin.SkinNetSettings, SkinSettings, None),
}


def stage_settings(config: Config, name: str) -> list[Any]:
    """The settings in the table of a stage: of the network, of the training, and the weights of the losses.

    The settings of the network are in the inner table `net`, and the weights of the losses in the inner table
    `weights`.

    Raises UserError for an unknown field and for a value that is not allowed.
    """
    table = dict(config[name])
    own = {f"[{name}.net]": table.pop("net", {}), f"[{name}]": table, f"[{name}.weights]": table.pop("weights", {})}
    return [
        settings_of(kind, values, at) for kind, (at, values) in zip(_TABLES[name], own.items(), strict=True) if kind
    ]
