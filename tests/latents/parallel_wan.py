"""Run by `torchrun`: one forward of the toy large model cut over the processes, against the whole of it."""

from unittest import mock

import torch
import torch.distributed as dist
from diffusers import ContextParallelConfig

from tests.latents.test_wan import run
from tests.tiny_wan import tiny_wan_transformer

torch.set_num_threads(1)
dist.init_process_group("gloo")
whole = run(tiny_wan_transformer())
transformer = tiny_wan_transformer()
with mock.patch("torch.accelerator.device_count", return_value=1):
    transformer.enable_parallelism(config=ContextParallelConfig(ulysses_degree=2))
patches: list[int] = []
transformer.blocks[1].register_forward_pre_hook(lambda _part, given: patches.append(given[0].shape[1]))
off = (run(transformer) - whole).abs().max().item()
print(f"{patches[0]} of 24 patches, off by {off:.1e}", flush=True)
dist.destroy_process_group()
