import sys
import threading
import time

import pytest

from lab.deadline import Calls


def test_calls_are_made_in_their_order_in_one_other_thread():
    calls, found = Calls(), []
    for number in range(3):
        calls(10, lambda n: found.append((n, threading.current_thread())), number)
    assert [number for number, _ in found] == [0, 1, 2]
    (thread,) = {thread for _, thread in found}
    assert thread is not threading.current_thread() and thread.daemon
    calls.close()
    thread.join(10)
    assert not thread.is_alive()


def test_an_exception_is_raised_to_the_caller():
    calls = Calls()
    with pytest.raises(ZeroDivisionError):
        calls(10, lambda: 1 / 0)
    with pytest.raises(RuntimeError, match="it wanted to exit"):
        calls(10, lambda: sys.exit("no licence"))
    calls(10, lambda: None)
    assert not calls.is_stuck
    calls.close()


def test_a_call_that_hangs_is_left_alone():
    calls, release = Calls(), threading.Event()
    started = time.monotonic()
    with pytest.raises(TimeoutError, match="no answer within"):
        calls(0.05, release.wait)
    assert time.monotonic() - started < 5 and calls.is_stuck
    release.set()
    calls(10, lambda: None)  # whose answer is not that of the call before
    calls.close()
