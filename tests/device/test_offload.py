"""Networks that come to the device in parts, on a CPU: the same hooks and files, with one device at both ends."""

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mtvcraft_cli.cache import Cache
from mtvcraft_cli.device.depot import Depot
from mtvcraft_cli.device.offload import attach, attached, groups_of, has_blocks, lent, release
from mtvcraft_cli.device.placement import Placement
from mtvcraft_cli.device.scratch import Scratch
from mtvcraft_cli.latents.wanvideo.text import encode_text
from tests.latents import test_cogvideox, test_wan
from tests.tiny import tiny_transformer, tiny_vae
from tests.tiny_wan import tiny_wan_transformer
from tests.tiny_wan_parts import tiny_picture_encoder, tiny_text_encoder, tiny_wan_vae

CPU = torch.device("cpu")
Make = Callable[[], nn.Module]
Run = Callable[[nn.Module], Tensor]
MODELS = [
    pytest.param(tiny_transformer, test_cogvideox.run, id="small"),
    pytest.param(tiny_wan_transformer, test_wan.run, id="large"),
]
WAYS = ("group", "sequential", "disk")


def counted(module: nn.Module) -> list[str]:
    """Which groups come from now on: the name of the first part of each, as it comes."""
    came, names = [], {part: name for name, part in module.named_modules()}
    for group in groups_of(module):
        real, name = group.onload_, names[group.onload_leader]
        group.onload_ = lambda real=real, name=name: (came.append(name), real())
    return came


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("make", "run"), MODELS)
def test_streamed_weights_give_the_same_bits_and_leave_nothing_behind(
    make: Make, run: Run, way: Any, tmp_path: Path
) -> None:
    module = make()
    before, weights = run(module), {name: tensor.clone() for name, tensor in module.state_dict().items()}
    depot = Depot(CPU, tmp_path)
    depot.become(Placement(offload=way), (), [module])
    with depot.working(module):
        came = counted(module)
        assert torch.equal(run(module), before)
        once = list(came)
        assert torch.equal(run(module), before)
        assert came == 2 * once, "every forward brings the weights anew"
    blocks = [name for name in once if name.rpartition(".")[0] in ("blocks", "transformer_blocks")]
    if way != "sequential":
        assert len(blocks) == 4
        assert len(once) == len(blocks) + 1, "and what lies around the blocks"
    else:
        assert len(once) > 4 * 10
    files = list(tmp_path.rglob("group_*.safetensors"))
    assert len(files) == (5 if way == "disk" else 0)
    depot.become(Placement(), (), [module])
    assert list(tmp_path.rglob("*.safetensors")) == []
    assert not attached(module)
    came.clear()
    with depot.working(module):
        assert torch.equal(run(module), before)
    assert came == []
    assert all(torch.equal(tensor, weights[name]) for name, tensor in module.state_dict().items())


def test_weights_on_disk_are_not_in_ram(tmp_path: Path) -> None:
    module = tiny_transformer()
    before = [parameter.clone() for parameter in module.transformer_blocks.parameters()]
    attach(module, CPU, "disk", tmp_path)
    there = [torch.equal(one, other) for one, other in zip(module.transformer_blocks.parameters(), before, strict=True)]
    assert sum(there) < len(there) / 2, "what stands in their place is empty"
    release(module)
    assert all(
        torch.equal(one, other) for one, other in zip(module.transformer_blocks.parameters(), before, strict=True)
    )


def test_learned_no_motion_tokens_can_be_read_while_all_else_is_in_files(tmp_path: Path) -> None:
    module = tiny_transformer()
    wanted, names = module.unconditional_tokens(3).clone(), [name for name, _ in module.named_parameters()]
    attach(module, CPU, "disk", tmp_path)
    test_cogvideox.run(module)
    assert torch.equal(module.unconditional_tokens(3), wanted)
    release(module)
    assert [name for name, _ in module.named_parameters()] == names


@pytest.mark.parametrize("way", WAYS)
def test_a_forward_that_fails_half_way_can_be_undone(way: Any, tmp_path: Path) -> None:
    module = tiny_transformer()
    before = test_cogvideox.run(module)
    depot = Depot(CPU, tmp_path)
    depot.become(Placement(offload=way), (), [module])
    with depot.working(module):
        failing = module.transformer_blocks[2].ff.register_forward_pre_hook(_fail)
        with pytest.raises(RuntimeError, match="in the middle"):
            test_cogvideox.run(module)
        failing.remove()
    depot.become(Placement(offload="group"), (), [module])
    with depot.working(module):
        assert torch.equal(test_cogvideox.run(module), before)
    depot.fetch_back(module)
    assert torch.equal(test_cogvideox.run(module), before)


def _fail(*_: object) -> None:
    raise RuntimeError("in the middle")


def test_what_has_no_blocks_comes_and_goes_as_a_whole(tmp_path: Path) -> None:
    for module in (tiny_vae(), tiny_wan_vae(), tiny_picture_encoder()):
        assert not has_blocks(module)
        depot = Depot(CPU, tmp_path)
        depot.become(Placement(offload="disk"), (), [])
        with depot.working(module):
            assert not attached(module)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("way", ["none", *WAYS])
def test_the_text_encoder_is_lent_and_reads_the_same(way: Any) -> None:
    encoder = tiny_text_encoder()
    before = encode_text(encoder, [[3, 4, 1]], 8)
    with lent(encoder.encoder, CPU, way):
        assert attached(encoder.encoder) is (way != "none")
        came = counted(encoder.encoder)
        assert torch.equal(encode_text(encoder, [[3, 4, 1]], 8), before)
        assert bool(came) is (way != "none")
    assert not attached(encoder.encoder)
    assert torch.equal(encode_text(encoder, [[3, 4, 1]], 8), before)


def test_files_are_gone_with_their_owner_and_those_of_the_dead_with_the_next(tmp_path: Path) -> None:
    root = tmp_path / "offload"
    left = root / ".left.part"
    left.mkdir(parents=True)
    (left / "group.safetensors").write_text("of a run that was killed")
    one, other = Scratch(root), Scratch(root)
    assert not left.exists()
    assert one.folder.is_dir(), "that of a run that lives is left alone"
    assert {path.name for path in root.glob(".*.part")} == {one.folder.name, other.folder.name}
    one.remove()
    assert not one.folder.exists()
    folder = other.folder
    del other
    gc.collect()
    assert not folder.exists()


def test_clearing_the_cache_takes_what_a_killed_run_left(tmp_path: Path) -> None:
    left = tmp_path / "offload" / ".left.part"
    left.mkdir(parents=True)
    Cache(tmp_path).clear()
    assert not left.exists()
