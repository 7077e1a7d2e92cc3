"""Two workers share two cores: a thread each is several times as fast as two each."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the programs that tests start as well

import torch

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
