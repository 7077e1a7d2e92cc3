"""Where models work."""

import pytest
import torch
from torch import nn

from mtvcraft_cli.device.place import choose_device, choose_dtype, working
from mtvcraft_cli.errors import Exit, MtvcraftError


def test_auto_finds_a_device_that_computes() -> None:
    assert torch.ones(2, device=choose_device("auto")).sum() == 2


def test_the_cpu_is_always_there() -> None:
    assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda:99", "gpu", "meta", "cpu:1", "cuda:x"])
def test_a_device_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(MtvcraftError, match=f"`{name}`") as caught:
        choose_device(name)
    assert caught.value.exit == Exit.USAGE
    assert "auto" in caught.value.hint


def test_a_cpu_computes_in_float32_whatever_the_preset_says() -> None:
    assert choose_dtype(torch.device("cpu"), "bfloat16") == torch.float32
    assert choose_dtype(torch.device("cuda"), "bfloat16") == torch.bfloat16
    assert choose_dtype(torch.device("cuda"), "float32") == torch.float32


@pytest.mark.parametrize(("offload", "afterwards"), [("none", "meta"), ("model", "cpu")])
def test_a_model_is_on_the_device_only_while_it_works(offload: str, afterwards: str) -> None:
    moves: list[str] = []

    class Part(nn.Module):
        def to(self, device: str | torch.device) -> "Part":
            moves.append(torch.device(device).type)
            return self

    with working(Part(), torch.device("meta"), offload):
        assert moves == ["meta"]
    assert moves[-1] == afterwards


def test_a_model_leaves_the_device_when_its_work_fails() -> None:
    part = nn.Linear(2, 2)
    with pytest.raises(RuntimeError, match="failed"), working(part, torch.device("cpu"), "model"):
        raise RuntimeError("failed")
    assert part.weight.device.type == "cpu"
