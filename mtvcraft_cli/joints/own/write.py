"""Joints out again, in the format that the file's ending names."""

from pathlib import Path

import numpy as np

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.files import writing
from mtvcraft_cli.joints.files import Motion, save_motion
from mtvcraft_cli.joints.own.bvh import write_bvh


def write_motion(path: Path, motion: Motion) -> None:
    """Write `.npz` (our own fields), `.npy` ((T, 24, 3) millimetres) or `.bvh`, whole or not at all.

    Raises:
        MtvcraftError: (`Exit.USAGE`) another ending.
    """
    ending = path.suffix.lower()
    if ending == ".npz":
        save_motion(path, motion)
    elif ending == ".npy":
        with writing(path) as draft, draft.open("wb") as file:
            np.save(file, motion.joints_mm, allow_pickle=False)
    elif ending == ".bvh":
        write_bvh(path, motion)
    else:
        raise MtvcraftError(
            f"no format of joints ends in `{ending or path.name}`",
            hint="name the output `.joints.npz`, `.npy` or `.bvh`",
            exit=Exit.USAGE,
        )
