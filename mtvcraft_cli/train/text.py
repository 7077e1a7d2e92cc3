"""What the large model reads of captions, encoded once and kept in files beside the clips' latents."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedTokenizerFast, UMT5EncoderModel

from mtvcraft_cli.device.place import working
from mtvcraft_cli.files import writing
from mtvcraft_cli.latents.wanvideo.text import encode_text, tokenise
from mtvcraft_cli.progress import Watch, silent

Load = Callable[[], tuple[PreTrainedTokenizerFast, UMT5EncoderModel]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Texts:
    """A folder with a file for each text.

    Args:
        folder: where; it belongs to one text encoder.
        length: tokens that the transformer reads; shorter texts end in zeros.
        load: brings the text encoder, which is only there while there are new texts.
    """

    folder: Path
    length: int
    load: Load

    def path(self, text: str) -> Path:
        """Where what is made of a text lies."""
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.safetensors"

    def complete(self, texts: Iterable[str], device: torch.device, watch: Watch = silent) -> int:
        """Encode the texts that are new.

        Returns:
            How many these were.

        Raises:
            MtvcraftError: a text is too long (exit 2), or the encoder can't be read (exit 6).
        """
        new = sorted(text for text in set(texts) if not self.path(text).is_file())
        if not new:
            return 0
        self.folder.mkdir(parents=True, exist_ok=True)
        tokenizer, encoder = self.load()
        numbers = [tokenise(tokenizer, text, self.length) for text in new]
        with working(encoder, device, "model"):
            for text, tokens in watch(zip(new, numbers, strict=True), "text", len(new)):
                features = encode_text(encoder, [tokens], len(tokens))[0].cpu()  # (L, E), unfilled
                with writing(self.path(text)) as draft:
                    save_file({"text": features.contiguous()}, draft)
        return len(new)

    def __call__(self, text: str) -> Tensor:
        """(length, E) float32 of a text that is there."""
        features = load_file(self.path(text))["text"].float()
        return functional.pad(features, (0, 0, 0, self.length - len(features)))
