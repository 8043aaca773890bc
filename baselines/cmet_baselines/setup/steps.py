"""Sets up one method, step by step: checkout, environment, weights, smoke test. The same command finishes a setup."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from cmet_baselines.adapters.recipe import RecipeMethod
from cmet_baselines.entry import Entry
from cmet_baselines.setup import checkout, environment, state, weights
from cmet_baselines.setup.request import Request
from cmet_baselines.setup.state import State, recipe_of
from cmet_pipelines.out_folder import output_folder
from talking_face.names import counted, printable
from talking_face.pretrained.model_files import ModelFiles
from talking_face.reasons import ClipError, UserError

Say = Callable[[str], None]


def set_up(entry: Entry, request: Request, files: ModelFiles, say: Say) -> State:
    """Does every step, and stores the state.

    Args:
        entry: a method of kind `recipe`, not a variant of it.
        request: what the user gave.
        files: the folders of model files.
        say: receives one line for each step.

    Raises UserError in one line: what is missing or wrong, and what to do.
    """
    with output_folder(state.method_folder(entry.name, request.seeded, files)):
        before = None if request.fresh else state.read_state(entry, request.seeded, files)
        _check_first(entry, request, before, files)
        code = _checkout(entry, request, before, files)
        say(f"checkout: {code.path}, commit {code.commit[:12]}, " + _proof(code))
        python = environment.probe(_python(entry, request, before, files, say), gpu=request.device != "cpu")
        say(f"environment: {python.path}, Python {python.version}, {counted(len(python.packages), 'package')}")
        for line in environment.differences(recipe_of(entry), python):
            say(f"  differs: {line}")
        device = request.device or ("cuda:0" if python.gpu else "cpu")
        folder = _seeded(entry, request, code.path, python.path, files, say) if request.seeded else request.weights
        new = State(
            name=entry.name,
            seeded=request.seeded,
            checkout=code.path,
            commit=code.commit,
            commit_from=code.known_from,
            python=python.path,
            python_version=python.version,
            packages=environment.packages_hash(python),
            device=device,
            device_name=f"{device} ({python.gpu})" if python.gpu and device == "cuda:0" else device,
            options=dict(request.options),
            weights=_known_weights(entry, folder, before.weights if before is not None else {}, files, say),
        )
        # The hashes are stored before the smoke test, so that they hold also if it fails.
        state.write_state(new, files)
        new = new.model_copy(update={"smoke": _smoke(entry, new, files, say)})
        state.write_state(new, files)
        return new


def lacking(entry: Entry, request: Request, files: ModelFiles) -> Iterator[str]:
    """One line for each thing that is missing or wrong; nothing for a method that is ready. Nothing is changed."""
    recipe, before = recipe_of(entry), state.read_state(entry, request.seeded, files)
    if before is not None and (request.checkout, request.weights, request.python) == (None, None, None):
        yield from state.problems(entry, before, request.seeded)
        return
    root = state.baselines_folder(files)
    assert entry.code is not None
    folder = request.checkout or (before.checkout if before else root / "checkouts" / entry.name)
    if folder.is_dir():
        try:
            checkout.given(folder, entry.code)
        except UserError as error:
            yield f"checkout: {error}"
        yield from (f"checkout: {line}" for line in state.checkout_problems(recipe, folder))
    elif request.checkout is not None:
        yield f"checkout: the folder {printable(str(folder))} does not exist"
    else:
        yield f"checkout: none; setup clones {checkout.address(entry.code)} at {entry.code.commit}"
    if request.python is not None:
        try:
            environment.probe(request.python, gpu=False)
        except UserError as error:
            yield f"environment: {error}"
    elif before is None and not environment.is_built(environment.environment_folder(recipe, root)):
        yield f"environment: none; setup builds one with Python {recipe.python}, or give --python EXE"
    if not request.seeded:
        yield from weights.missing(entry, request.weights, files)
    yield f"smoke test: not run with these files; {state.command(entry, request.seeded)} with the same options runs it"


def _check_first(entry: Entry, request: Request, before: State | None, files: ModelFiles) -> None:
    """Raises UserError for what can be known before the repository is cloned and packages are installed."""
    recipe, root = recipe_of(entry), state.baselines_folder(files)
    if unknown := sorted(set(request.options) - set(recipe.options)):
        known = ", ".join(recipe.options) or "none"
        raise UserError(f"{entry.name} has no option {printable(unknown[0])}; its options: {known}")
    for folder, name in ((request.checkout, "checkout"), (request.weights, "folder of weights")):
        if folder is not None and not folder.is_dir():
            raise UserError(f"the {name} {printable(str(folder))} does not exist")
    if request.seeded and request.weights is not None:
        raise UserError("--seeded writes the weights itself; leave --weights out")
    if request.python is not None:
        environment.probe(request.python, gpu=False)
    else:
        environment.check_tools(recipe, root)
    pins = before.weights if before is not None else {}
    needed = () if request.seeded else state.needed_weights(entry)
    if lacking := [w for w in needed if (weights.find(w, request.weights, files) or _first(pins, w.file)) is None]:
        names = ", ".join(weight.file for weight in lacking)
        raise UserError(
            f"{entry.name} has no {names} (sources: `cmet-eval baselines show {entry.name}`); "
            f"put the files into one folder and run {state.command(entry, more=' --weights DIR')}"
        )


def _known_weights(
    entry: Entry, folder: Path | None, pins: Mapping[str, state.KnownFile], files: ModelFiles, say: Say
) -> dict[str, state.KnownFile]:
    """The weight files that are here, with their hashes. Raises UserError if one is not the file of its first use."""
    found: dict[str, state.KnownFile] = {}
    for weight in entry.weights:
        if (path := weights.find(weight, folder, files) or _first(pins, weight.file)) is not None:
            found[weight.file] = weights.known(weight, path, pins)
            say(f"weights: {weight.file}, sha256 {found[weight.file].sha256[:16]}..., {found[weight.file].bytes} bytes")
        else:
            say(f"weights: {weights.described(weight)}; absent")
    return found


def _proof(code: checkout.Checkout) -> str:
    return "known from git" if code.known_from == "git" else "no .git there: only the called files were compared"


def _checkout(entry: Entry, request: Request, before: State | None, files: ModelFiles) -> checkout.Checkout:
    """The checkout that the user gave, the one of an earlier setup, or a new clone, with its files compared."""
    assert entry.code is not None
    earlier = before.checkout if before is not None and before.checkout.is_dir() else None
    if (folder := request.checkout or earlier) is not None:
        code = checkout.given(folder, entry.code)
    else:
        code = checkout.clone(state.baselines_folder(files) / "checkouts" / entry.name, entry.code)
    if (line := next(state.checkout_problems(recipe_of(entry), code.path), None)) is not None:
        raise UserError(line)
    return code


def _python(entry: Entry, request: Request, before: State | None, files: ModelFiles, say: Say) -> Path:
    """The interpreter that the user gave, the one of an earlier setup, or a new environment's."""
    if request.python is not None:
        return request.python
    recipe, root = recipe_of(entry), state.baselines_folder(files)
    if before is not None and shutil.which(before.python) and not environment.is_of_suite(before.python, root):
        return before.python
    if not environment.is_built(environment.environment_folder(recipe, root)):
        say("environment: the packages are installed; this takes minutes")
    return environment.build(recipe, root)


def _seeded(entry: Entry, request: Request, code: Path, python: Path, files: ModelFiles, say: Say) -> Path:
    """The folder of the seeded weights, which are written if one is absent."""
    folder = state.method_folder(entry.name, True, files) / "weights"
    # A file that this suite has itself, such as dlib's 68 points, is not a network of the repository.
    suite_has = [weight for weight in entry.weights if weight.registered and weights.find(weight, None, files)]
    needed = [weight.file for weight in state.needed_weights(entry) if weight not in suite_has]
    if request.fresh or any(not (folder / name).exists() for name in needed):
        say("weights: SEEDED, random numbers of the real shapes; they test only that the code runs")
        part = folder.with_name(folder.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        weights.write_seeded(recipe_of(entry), code, python, part)
        if lacking := [name for name in needed if not (part / name).exists()]:
            raise UserError(f"{entry.name}: the recipe's seeded.py wrote no {', '.join(lacking)}")
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    return folder


def _first(pins: Mapping[str, state.KnownFile], name: str) -> Path | None:
    """The path at which a weight file was in an earlier setup, if it is still there."""
    known = pins.get(name)
    return known.path if known is not None and known.path.exists() else None


def _smoke(entry: Entry, new: State, files: ModelFiles, say: Say) -> state.Smoke:
    """Runs the smoke test. Raises UserError if the method fails or its video is wrong."""
    from cmet_baselines.setup import smoke  # imports scipy

    recipe, sees = recipe_of(entry), frozenset(entry.sees)
    emotion = "happy" if not recipe.emotions or "happy" in recipe.emotions else next(iter(recipe.emotions))
    say(f"smoke test: {recipe.smoke_frames} frames on {new.device}, at most {recipe.deadline_s:g} s after the start")
    method = RecipeMethod(entry.name, state.revision(entry, new), sees, recipe, state.place_of(new))
    video = state.method_folder(entry.name, new.seeded, files) / "smoke.mp4"
    try:
        seen = smoke.run(method, recipe.smoke_frames, emotion, files, video)
    except ClipError as error:
        raise UserError(f"the smoke test of {entry.name} failed, {error}; log: {video.with_suffix('.log')}") from None
    say(
        f"smoke test: {seen.frames} of {seen.wanted} frames, {seen.size[1]}x{seen.size[0]} px, a face in {seen.faces}, "
        f"mean grey {seen.brightness:.0f}, mean change {seen.motion:.2f}, {seen.seconds:g} s; {video}"
    )
    for note in seen.notes:
        say(f"  {note}")
    if wrong := list(smoke.faults(seen, new.seeded)):
        raise UserError(f"the video of the smoke test of {entry.name} is wrong: {'; '.join(wrong)}; look at {video}")
    return seen
