"""What can't be had together is refused before anything is loaded."""

from typing import Any

import pytest

from mtvcraft_cli.device.together import check_together
from mtvcraft_cli.errors import Exit, MtvcraftError, explained


def test_quantised_matrices_work_in_one_process_and_on_one_card() -> None:
    check_together(quantize="nf4")
    check_together(quantize="nf4", cards=1)
    check_together(quantize="none", cards=2)
    check_together(quantize="none", ranks=2)
    for asked, words in (({"cards": 2}, "2 are named"), ({"ranks": 4}, "torchrun has started 4")):
        refused(words, quantize="nf4", **asked)


def test_what_skips_or_compiles_blocks_wants_them_whole_and_alone() -> None:
    check_together(level="fast", quantize="int8")
    check_together(level="fast", compiled=True, offload="model")
    for way in ("group", "sequential", "disk"):
        refused("`--speed balanced` wants the whole transformer", level="balanced", offload=way)
        refused("`--compile` wants the whole transformer", compiled=True, offload=way)
    for asked in ({"cards": 2}, {"ranks": 2}):
        refused("`--speed fast` works", level="fast", **asked)
        refused("`--compile` works", compiled=True, **asked)
    refused("`--quantize fp8` packs them", compiled=True, quantize="fp8")


def test_layers_that_are_split_over_cards_stay_there() -> None:
    check_together(offload="model", cards=1)
    for way in ("auto", "none"):
        check_together(offload=way, cards=2)
    for way in ("model", "group", "sequential", "disk"):
        refused(f"`--offload {way}` takes layers off a card, and each of the 2", offload=way, cards=2)


def test_the_way_out_of_too_little_memory_names_what_it_can_not_be_had_with() -> None:
    class OutOfMemoryError(RuntimeError):
        """As torch calls its own."""

    hint = explained(OutOfMemoryError("CUDA out of memory.")).hint
    way, _, without = hint.partition("without")
    assert "`--offload sequential --two-passes`" in way
    check_together(offload="sequential")
    clashing = {"`--speed`": {"level": "fast"}, "`--compile`": {"compiled": True}, "`--gpus`": {"cards": 2}}
    for word, asked in clashing.items():
        refused("--offload sequential", offload="sequential", **asked)
        assert word in without
    assert "torchrun" in without, "device.ranks refuses that"


def test_attention_is_chosen_for_one_process() -> None:
    check_together(attention="flash", cards=2, offload="auto")
    check_together(attention="native", ranks=2)
    check_together(attention="auto", ranks=2)
    refused("`--attention flash` works in one process", attention="flash", ranks=2)


def refused(words: str, **asked: Any) -> None:
    with pytest.raises(MtvcraftError, match=words) as caught:
        check_together(**asked)
    assert caught.value.exit == Exit.USAGE
