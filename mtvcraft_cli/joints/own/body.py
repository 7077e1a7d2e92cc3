"""A body model's file, read as data and handed to smplx, which never opens it."""

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Float32

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.joints.own.content import read_content
from mtvcraft_cli.joints.skeleton import NEUTRAL_LENGTHS_MM, PARENTS

SHAPES: Final = {
    "v_template": (6890, 3),
    "shapedirs": (6890, 3, None),
    "posedirs": (6890, 3, 207),
    "J_regressor": (24, 6890),
    "weights": (6890, 24),
    "kintree_table": (2, 24),
    "f": (None, 3),
}
"""What an SMPL file has to hold; None is any size."""


@dataclass(frozen=True, eq=False)
class Body:
    """SMPL: betas make a resting body, rotations move it."""

    model: Any
    """`smplx.SMPL` on the CPU."""

    def rest_mm(self, betas: Float32[np.ndarray, "10"] | None = None) -> Float32[np.ndarray, "24 3"]:
        """Return the joints of the resting body with these betas (None: all zero), millimetres."""
        import torch

        row = np.zeros((1, self.model.num_betas), np.float32)
        row[0, : 0 if betas is None else 10] = 0 if betas is None else betas[: row.shape[1]]
        with torch.no_grad():
            shaped = self.model.forward_shape(torch.from_numpy(row)).v_shaped[0]
            return np.asarray((1000 * self.model.J_regressor @ shaped).numpy(), np.float32)

    def bones_mm(self, betas: Float32[np.ndarray, "10"] | None = None) -> Float32[np.ndarray, "24 3"]:
        """Return each resting joint seen from its parent, and the pelvis as it is: what `forward` moves, millimetres.

        The joints of SMPL turn as a skeleton does, whatever its skin does (SMPL, 2015, section 3.2).
        """
        rest_mm = self.rest_mm(betas)
        bones = rest_mm.copy()
        bones[1:] -= rest_mm[list(PARENTS[1:])]
        return bones

    def pelvis_moved_mm(self, betas: Float32[np.ndarray, "T 10"]) -> Float32[np.ndarray, "T 3"]:
        """Return how far betas move the resting pelvis from where the neutral body has it, millimetres."""
        shapes = self.model.shapedirs[..., :10].numpy()
        each_mm = 1000 * np.einsum("v,vak->ak", self.model.J_regressor[0].numpy(), shapes)
        return (betas[:, : each_mm.shape[1]] @ each_mm.T).astype(np.float32)


def load_body(path: Path) -> Body:
    """Read an SMPL body file, `.pkl` (with or without objects of chumpy and scipy) or `.npz`.

    Nothing in it is run, see `pickled`.

    Raises:
        MtvcraftError: (`Exit.WEIGHTS`) no such file, or smplx isn't installed; (`Exit.INPUT`) it isn't SMPL's body.
    """
    if not path.is_file():
        raise MtvcraftError(
            f"there is no body file `{path}`",
            hint="register at https://smpl.is.tue.mpg.de and give the path of SMPL_NEUTRAL.pkl to `--body-model`",
            exit=Exit.WEIGHTS,
        )
    try:
        fields = read_content(path)
    except MtvcraftError as error:
        message = error.message.replace("read as motion", "read as a body file")
        raise MtvcraftError(f"`--body-model`: {message}", hint="give SMPL's own file, `.pkl` or `.npz`") from error
    arrays = {name: _checked(fields, name, shape, path.name) for name, shape in SHAPES.items()}
    arrays["kintree_table"] = arrays["kintree_table"].astype(np.int64)
    if arrays["kintree_table"][0, 1:].tolist() != list(PARENTS[1:]):
        raise _unfit(path.name, "joints that hang together in another way than SMPL's")
    try:
        import smplx
    except ImportError as error:
        raise MtvcraftError(
            "a body file needs the package smplx, which isn't installed",
            hint="install it with `pip install smplx`, or leave `--body-model` out",
            exit=Exit.WEIGHTS,
        ) from error
    with contextlib.redirect_stdout(io.StringIO()):  # smplx prints that a file of ten betas has ten betas
        body = Body(smplx.SMPL("", data_struct=smplx.utils.Struct(**arrays)))
    if not 0.5 < float(np.linalg.norm(body.bones_mm()[1:], axis=1).sum() / NEUTRAL_LENGTHS_MM.sum()) < 2:
        raise _unfit(path.name, "bones of no person's length")
    return body


def _checked(fields: Any, name: str, shape: tuple[int | None, ...], file: str) -> Any:
    values = fields.get(name) if isinstance(fields, dict) else None
    if not isinstance(values, np.ndarray):
        raise _unfit(file, f"no array `{name}`")
    if values.ndim != len(shape) or any(want not in (None, is_) for want, is_ in zip(shape, values.shape, strict=True)):
        wanted = " x ".join("any" if want is None else str(want) for want in shape)
        raise _unfit(file, f"a `{name}` of {values.shape} instead of {wanted}")
    if values.dtype.kind not in "iuf" or not np.isfinite(values).all():
        raise _unfit(file, f"a `{name}` that isn't all finite numbers")
    return values


def _unfit(file: str, what: str) -> MtvcraftError:
    return MtvcraftError(
        f"`{file}` isn't a body file of SMPL: it has {what}",
        hint="give SMPL's own file (24 joints, 6890 vertices), `.pkl` or `.npz`; SMPL-X and SMPL-H have other bodies",
    )
