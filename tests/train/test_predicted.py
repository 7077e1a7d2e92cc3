"""A decoder that is trained on what a transformer makes."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mtvcraft_cli.errors import MtvcraftError
from mtvcraft_cli.latents.vae import build_vae, decode, to_video
from mtvcraft_cli.latents.walk import walk
from mtvcraft_cli.preset import load_preset
from mtvcraft_cli.runs.models import load_tokenizer, settings_of, small_models
from mtvcraft_cli.tokens.tokenise import motion_tokens, tokenise
from mtvcraft_cli.train.examples import WorldExamples
from mtvcraft_cli.train.settings import load_recipe
from mtvcraft_cli.train.stages import examples_of, train_stage
from mtvcraft_cli.train.vae import VaeObjective
from mtvcraft_cli.weights.locate import locate
from mtvcraft_cli.windows import plan_windows
from tests.train.test_training import fresh_accelerator, trained
from tests.train.toy import toy_recipe

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.utils.tensorboard.*", "ignore:.*lr_scheduler.*")


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with toy runs of all three networks."""
    folder = tmp_path_factory.mktemp("toys")
    runs = {part: trained(part, folder, phases=[[2, 1e-3, 1e-3]]).folder for part in ("tokenizer", "vae")}  # type: ignore[arg-type]
    # Not from `start: reference`, whose first steps draw the reference whatever the motion and the noise are.
    fresh_accelerator()
    recipe = load_recipe(str(toy_recipe(folder, phases=[[2, 1e-3, 1e-3]])), {"dit.start": "noise"})
    train_stage("dit", recipe, folder / "dit", parts=runs)
    return folder


def test_a_decoder_learns_to_show_what_a_transformer_makes(toys: Path, tmp_path: Path) -> None:
    more = {"vae.base": str(toys / "vae"), "vae.decoder_only": True, "vae.predicted": str(toys / "dit")}
    how = {"vae.loop.phases": [[40, 2e-3, 2e-3]], "vae.predicted_clips": 64}
    recipe = load_recipe(str(toys / "toy.yaml"), more | how)
    fresh_accelerator()
    run = train_stage("vae", recipe, tmp_path / "further").folder
    before, after = (load_file(each / "vae.safetensors") for each in (toys / "vae", run))
    moved = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert moved
    assert all(name.startswith("decoder.") for name in moved)

    # What it learned from is what `animate` shows of such a clip, before the decoder.
    kept = load_file(run / "predicted" / "shard-00000.safetensors")
    examples = WorldExamples()
    clip = examples(3, (16, 16), 9)
    assert np.array_equal(kept["frames"][3].numpy(), clip.frames)
    preset = load_preset(str(toys / "dit"))
    parts = locate(preset, None)
    models = small_models(preset, parts, torch.device("cpu"))
    tokenizer = load_tokenizer(preset, parts["tokenizer"])
    window = plan_windows(9, preset.frames, preset.overlap)
    made = tokenise(clip.joints_mm[1:], tokenizer, window, preset.statistics, preset.differential)
    tokens = motion_tokens(made.tokens, tokenizer, 0)[0]

    def walked(tokens: torch.Tensor, seed: int) -> torch.Tensor:
        found: dict[str, torch.Tensor] = {}
        list(walk(models, clip.reference, [tokens], window, settings_of(preset, torch.device("cpu")), seed, kept=found))
        return found["window-0"][0]

    own = kept["latents"][3].float()
    assert torch.allclose(own, walked(tokens, 3), atol=1e-2, rtol=1e-2)
    for other in (walked(tokens, 4), walked(tokens.flip(0), 3)):
        assert not torch.allclose(own, other, atol=1e-2, rtol=1e-2)

    video = torch.cat([to_video(frames) for frames in kept["frames"].numpy()])

    def away(vae: dict[str, torch.Tensor]) -> float:
        with torch.no_grad():
            shown = decode(build_vae(preset.vae, vae), kept["latents"].float())
        return float((shown - video).abs().mean())

    assert away(after) < 0.95 * away(before)

    # Clips of `encoded` are shown from the encoder's latents, the others from those that are given.
    assert recipe.vae is not None
    objective = VaeObjective(build_vae(preset.vae, after), recipe.vae)
    latents = kept["latents"][:2].float().transpose(1, 2)
    batch = {"video": video[:2], "figure": torch.ones_like(video[:2, :1]), "noise": torch.zeros_like(latents)}
    with torch.no_grad():
        plain = objective(**batch)["l1"]
        whole, none = (
            objective(**batch, predicted=latents, encoded=torch.tensor([yes, yes]))["l1"] for yes in (True, False)
        )
    assert whole == plain
    assert abs(none - plain) > 1e-4


def test_a_recipe_says_how_much_of_the_motion_is_recorded(tmp_path: Path) -> None:
    still = {"joints": np.zeros((60, 24, 3), np.float32), "clip_start": [0], "clip_length": [60], "fps": 24}
    np.savez(tmp_path / "still.npz", **still)
    shares = {}
    for share in (0.75, 0.2):
        more = {"vae.world.motion": str(tmp_path / "still.npz"), "vae.world.recorded": share}
        recipe = load_recipe(str(toy_recipe(tmp_path)), more)
        assert recipe.vae is not None
        examples = examples_of(recipe, recipe.vae.world, [(16, 16)])[0]
        assert isinstance(examples, WorldExamples)
        assert examples.motions is not None
        assert examples.motions.share == share
        shares[share] = examples.told
    assert shares[0.75] != shares[0.2]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"vae.decoder_only": False}, "has an encoder already"),
        ({"vae.predicted": "17b"}, "on wan"),
        ({"vae.predicted": "{toys}/vae"}, "no trained"),
        ({"vae.predicted": "{toys}/none"}, "none"),
        ({"vae.frames": [9, 17]}, "windows of 9 frames of 16 x 16"),
        ({"vae.base": "{other}"}, "another VAE's latents"),
    ],
)
def test_latents_that_a_decoder_cannot_learn_from_are_refused(
    toys: Path, tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    if "{other}" in changes.values():
        (tmp_path / "other").mkdir()
        tensors = load_file(toys / "vae" / "vae.safetensors")
        save_file({name: tensor + 0.1 for name, tensor in tensors.items()}, tmp_path / "other" / "vae.safetensors")
        shutil.copyfile(toys / "vae" / "preset.yaml", tmp_path / "other" / "preset.yaml")
    places = {"toys": toys, "other": tmp_path / "other"}
    filled = {key: value.format(**places) if isinstance(value, str) else value for key, value in changes.items()}
    more = {"vae.base": str(toys / "vae"), "vae.decoder_only": True, "vae.predicted": str(toys / "dit")}
    recipe = load_recipe(str(toys / "toy.yaml"), more | filled)
    with pytest.raises(MtvcraftError, match=said):
        train_stage("vae", recipe, tmp_path / "further")
    assert not (tmp_path / "further" / "checkpoints").exists()
