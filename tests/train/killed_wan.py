"""Trains on Wan twice from one recipe: in one go, and killed on the way.

`python killed_wan.py RECIPE PARTS PREPARED FOLDER`; PREPARED is a run's folder whose clips are ready, so that the runs
differ by their steps alone.
"""

import os
import shutil
import signal
import sys
import time
from pathlib import Path

from mtvcraft_cli.train.backbones import STAGES  # noqa: F401 - or every fork would import it
from tests.train.killed import logged, start
from tests.train.toy_wan import given

KILLS = (30, 70)
"""After which logged steps the run is killed."""


def main(recipe: Path, parts: Path, prepared: Path, folder: Path) -> None:
    files = given({path.stem: path for path in parts.iterdir()})
    for name in ("whole", "killed"):
        shutil.copytree(prepared, folder / name)
    child = start("dit", recipe, folder / "whole", files)
    assert os.waitpid(child, 0)[1] == 0
    for step in KILLS:
        child = start("dit", recipe, folder / "killed", files)
        while logged(folder / "killed") < step:
            time.sleep(0.01)
        os.kill(child, signal.SIGKILL)
        ended = os.waitpid(child, 0)[1]
        assert os.WTERMSIG(ended) == signal.SIGKILL, f"it had ended already: {ended}"
    child = start("dit", recipe, folder / "killed", files)
    assert os.waitpid(child, 0)[1] == 0


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
