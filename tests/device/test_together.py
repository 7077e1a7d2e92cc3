"""What can't be had together is refused before anything is loaded."""

import pytest

from mtvcraft_cli.device.together import check_together
from mtvcraft_cli.errors import Exit, MtvcraftError


def test_quantised_matrices_work_in_one_process_and_on_one_card() -> None:
    check_together(quantize="nf4")
    check_together(quantize="nf4", cards=1)
    check_together(quantize="none", cards=2)
    check_together(quantize="none", ranks=2)
    for asked, words in (({"cards": 2}, "2 are named"), ({"ranks": 4}, "torchrun has started 4")):
        with pytest.raises(MtvcraftError, match=words) as caught:
            check_together(quantize="nf4", **asked)
        assert caught.value.exit == Exit.USAGE
