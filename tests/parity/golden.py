"""The numbers that the reference implementation gave for small random models, and how near ours must come.

A golden is data: `NAME.config.json` with `.weights`, `.inputs` and `.outputs.safetensors` beside it, all of them listed
in `tensors.json`. Which cases, lengths, layers and runs there are is read there, so that another set of goldens is
tested by the same code.

`MTVCRAFT_GOLDEN` names a folder of goldens; then it alone counts, and what it lacks is a failure. Without it the
folder `shared/golden` beside the checkout is taken where there is one, else the copies in `tests/data/golden`.
"""

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

# The largest absolute difference allowed, from the goldens' own table. Float32 noise is about 1e-6 of a tensor's
# spread per module; a wrong activation or epsilon moves outputs by 3e-4 and more.
TOKENIZER_LATENT = 5e-5
"""Also the reconstruction and every traced activation."""
TOKENIZER_TOKENS = 1e-5
TOKENIZER_LOSS = 1e-5
TOKENIZER_LOWVAR_LATENT = 5e-3
"""Inputs a hundred times smaller: rounding grows as much as the group norms enlarge them."""
ROPE_VISUAL = 2e-6
ROPE_MOTION = 1e-6
"""Where the mean joint is taken in float32, as the reference does."""
ROPE_MOTION_OTHER_MEAN = 2e-4
"""Where it is taken in another order or precision: depths near 1800 mm leave 5e-5 in the angles."""
ROPE_COLUMN_SUMS = 5e-2
ROPE_ROTATED = 1e-5
"""With the stored tables; 1e-3 with motion tables of one's own."""
DIT_7B = 5e-5
SAMPLER_7B_LATENTS = 1e-4
SAMPLER_7B_DECODED = 1e-3

REPOSITORY = Path(__file__).resolve().parents[2]
MISSING = "missing golden"
"""Stands for the cases of a golden that isn't there; a test that asks for it by `golden` fails."""


def folder() -> Path:
    """Where the goldens are."""
    if named := os.environ.get("MTVCRAFT_GOLDEN"):
        return Path(named)
    beside = REPOSITORY.parent / "shared" / "golden"
    return beside if beside.is_dir() else REPOSITORY / "tests" / "data" / "golden"


@dataclass(frozen=True)
class Golden:
    """One golden, to be read and not written to: it is shared by the tests."""

    config: dict[str, Any]
    weights: dict[str, Tensor]
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    shared: dict[str, Any]
    """What it borrows, by config key: `transformer_weights_file` gives tensors, `transformer_config_file` a dict."""


@lru_cache
def golden(name: str) -> Golden:
    """Read the golden `name`, e.g. "tokenizer_small".

    Raises:
        FileNotFoundError: it is not in the folder, or a file that it names isn't.
        AssertionError: a tensor that `tensors.json` lists isn't in its file, or is of another dtype or shape.
    """
    config = _read(f"{name}.config.json")
    shared = {key: _read(file) for key, file in config.items() if key.endswith("_file")}
    parts = {part: _read_part(f"{name}.{part}.safetensors") for part in ("weights", "inputs", "outputs")}
    if not parts["weights"]:
        parts["weights"] = shared.get("weights_file", {})
    return Golden(config=config, shared=shared, **parts)


def cases(name: str, pick: Callable[[Golden], Iterable[Any]]) -> list[Any]:
    """What `pick` finds in a golden, for `pytest.mark.parametrize`.

    A golden without such cases gives none. One that isn't there gives one case, `MISSING`, whose test fails as soon
    as it calls `golden`: collecting goes on, and the other goldens are tested.
    """
    try:
        return list(pick(golden(name)))
    except FileNotFoundError:
        return [MISSING]


def assert_close(actual: Tensor, expected: Tensor, limit: float, what: str = "") -> None:
    """Fail unless the shapes are equal and no value is off by more than `limit`; NaN is off."""
    assert tuple(actual.shape) == tuple(expected.shape), f"{what} has shape {tuple(actual.shape)}: {expected.shape}"
    off = (actual.detach().double() - expected.double()).abs().max().item() if expected.numel() else 0.0
    assert off <= limit, f"{what} is off by {off:.2e}, more than {limit:.0e}"


def _read(file: str) -> Any:
    path = folder() / file
    if path.suffix == ".json":
        return json.loads(path.read_text(encoding="utf-8"))
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing")
    tensors = load_file(path)
    for key, (dtype, shape) in _listing().get(file, {}).items():
        assert key in tensors, f"{file} lacks {key}, which tensors.json lists"
        seen = (str(tensors[key].dtype).removeprefix("torch."), list(tensors[key].shape))
        assert seen == (dtype, shape), f"{key} of {file} is {seen}, and tensors.json says {(dtype, shape)}"
    return tensors


def _read_part(file: str) -> dict[str, Tensor]:
    """The tensors of a golden's own file; empty where it has no such file and `tensors.json` lists none."""
    return _read(file) if file in _listing() or (folder() / file).exists() else {}


@lru_cache
def _listing() -> dict[str, dict[str, tuple[str, list[int]]]]:
    return json.loads((folder() / "tensors.json").read_text(encoding="utf-8"))
