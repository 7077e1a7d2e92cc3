"""Trains each stage twice from one recipe: in one go, and killed on the way. `python killed.py RECIPE FOLDER`.

Everything is imported once; each run is a fork of this process, which has not yet computed anything.
"""

import os
import signal
import sys
import time
import traceback
from pathlib import Path

import torch

from mtvcraft_cli.train.dit import DitStage  # noqa: F401 - or every fork would import it
from mtvcraft_cli.train.run import LOG
from mtvcraft_cli.train.settings import load_recipe
from mtvcraft_cli.train.stages import Kind, train_stage

KILLS: dict[Kind, tuple[tuple[int, int], ...]] = {
    "tokenizer": ((30, signal.SIGKILL), (70, signal.SIGKILL)),
    "vae": ((30, signal.SIGKILL), (55, signal.SIGTERM), (70, signal.SIGKILL)),
    "dit": ((30, signal.SIGKILL), (70, signal.SIGKILL)),
}
"""After which logged step each run is stopped, and how."""


def start(kind: Kind, recipe: Path, folder: Path, parts: dict[str, Path]) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        torch.set_num_threads(1)
        trained = train_stage(kind, load_recipe(str(recipe)), folder, parts=parts)
        code = 0 if trained.finished else 9
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def logged(folder: Path) -> int:
    log = folder / LOG
    return log.read_text().count('"kind": "train"') if log.is_file() else 0


def main(recipe: Path, folder: Path) -> None:
    for kind, kills in KILLS.items():
        parts = {part: folder / "whole" / part for part in ("tokenizer", "vae")} if kind == "dit" else {}
        child = start(kind, recipe, folder / "whole" / kind, parts)
        assert os.waitpid(child, 0)[1] == 0, kind
        for step, how in kills:
            child = start(kind, recipe, folder / "killed" / kind, parts)
            while logged(folder / "killed" / kind) < step:
                time.sleep(0.01)
            os.kill(child, how)
            ended = os.waitpid(child, 0)[1]
            if how == signal.SIGTERM:
                assert os.WEXITSTATUS(ended) == 9, f"{kind} did not stop by itself: {ended}"
                kept = max((folder / "killed" / kind / "checkpoints").glob("step-*"))
                assert int(kept.name[5:]) == logged(folder / "killed" / kind), "the last step was not kept"
            else:
                assert os.WTERMSIG(ended) == how, f"{kind} had ended already: {ended}"
        child = start(kind, recipe, folder / "killed" / kind, parts)
        assert os.waitpid(child, 0)[1] == 0, kind


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
