"""Work in a thread of its own: in order, beside its giver, and gone when the block is."""

import threading
import time
from collections.abc import Iterator

import pytest

from mtvcraft_cli.video.behind import Behind


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    assert not [thread for thread in threading.enumerate() if thread.name == "write-behind"]


def test_all_is_done_in_order_when_the_block_ends() -> None:
    done: list[int] = []

    def slowly(number: int) -> None:
        time.sleep(0.001)
        done.append(number)

    with Behind(slowly) as behind:
        for start in range(0, 50, 10):
            behind.give(range(start, start + 10))
    assert done == list(range(50))


def test_the_giver_goes_on_while_the_work_is_done() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def wait(_number: int) -> None:
        begun.set()
        assert go_on.wait(10)

    with Behind(wait) as behind:
        behind.give([1])
        assert begun.wait(10)  # at work, and we are here
        go_on.set()


def test_no_more_waits_than_may() -> None:
    held, go_on, third = list[int](), threading.Event(), threading.Event()

    def work(number: int) -> None:
        held.append(number)
        assert go_on.wait(10)

    with Behind(work, depth=1) as behind:

        def give() -> None:
            for number in (1, 2, 3):
                behind.give([number])
            third.set()

        giver = threading.Thread(target=give)
        giver.start()
        assert not third.wait(0.3)
        go_on.set()
        giver.join(10)
    assert held == [1, 2, 3]


def test_an_error_comes_out_where_more_is_given_or_at_the_end() -> None:
    def fail(number: int) -> None:
        raise ValueError(number)

    with pytest.raises(ValueError, match="1"), Behind(fail) as behind:
        behind.give([1, 2])
    given: list[int] = []

    def give_on() -> None:
        with Behind(fail) as behind:
            for number in range(1000):
                behind.give([1])
                given.append(number)
                time.sleep(0.001)

    with pytest.raises(ValueError, match="1"):
        give_on()
    assert len(given) < 1000


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_a_block_that_fails_drops_the_rest_and_waits_for_the_item_at_work(error: type[BaseException]) -> None:
    done, begun = list[int](), threading.Event()

    def work(number: int) -> None:
        begun.set()
        time.sleep(0.05)
        done.append(number)

    def fail() -> None:
        with Behind(work) as behind:
            behind.give(range(1000))
            behind.give(range(1000))
            assert begun.wait(10)
            raise error

    with pytest.raises(error):
        fail()
    assert 1 <= len(done) < 100
    assert done == list(range(len(done)))
