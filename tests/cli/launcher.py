"""Starts `mtvcraft` many times over: libraries are brought in once, and every run is a fork of this process.

Bringing in torch, diffusers and transformers takes several times as long as a job of toy size. A run is a process of
its own all the same, with its own folder, environment and streams; nothing of `mtvcraft_cli` is there when it begins.
"""

import atexit
import importlib
import json
import logging
import os
import runpy
import sys
from contextlib import suppress
from typing import Any

sys.modules["kernels"] = None  # type: ignore[assignment]  # as the program does before it imports any of these
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
LIBRARIES = (
    "torch",
    "numpy",
    "PIL.Image",
    "safetensors.torch",
    "huggingface_hub",
    "transformers",
    "diffusers.hooks",
    "diffusers.models.autoencoders.autoencoder_kl_cogvideox",
    "diffusers.models.autoencoders.autoencoder_kl_wan",
    "accelerate",
    "mediapipe",
)


def serve() -> None:
    """Read a job from each line of standard input, and answer with the process it has become and its exit code.

    Whoever started it has no child left: tests look for children that shouldn't be there.
    """
    if os.fork():
        os._exit(0)
    for name in LIBRARIES:
        with suppress(ImportError):
            importlib.import_module(name)
    for line in sys.stdin:
        child = os.fork()
        if not child:
            return run(json.loads(line))
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    return None


def run(job: dict[str, Any]) -> None:
    """Become the program, which ends the process."""
    os.chdir(job["cwd"])
    os.environ.clear()
    os.environ.update(job["env"])
    for number, name, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, job["stdout"], os.O_WRONLY),
        (2, job["stderr"], os.O_WRONLY),
    ):
        opened = os.open(name, flags)
        os.dup2(opened, number)
        os.close(opened)
    if constants := sys.modules.get("huggingface_hub.constants"):
        importlib.reload(constants)  # it read the environment
    sys.argv = ["mtvcraft", *job["words"]]
    try:
        runpy.run_module("mtvcraft_cli", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        atexit._run_exitfuncs()  # taking all the libraries down would take two seconds
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code if isinstance(end.code, int) else bool(end.code))


if __name__ == "__main__":
    serve()
