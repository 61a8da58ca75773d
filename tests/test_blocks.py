import threading

import numpy as np
import pytest

from divulge import blocks


@pytest.mark.parametrize("rows", [0, 1, 255, 256, 257, 10_000])
@pytest.mark.parametrize("row_bytes", [0, 1, 8, 4096, 10**9])
def test_blocks_cover_every_row_once(rows, row_bytes):
    seen = np.zeros(rows, int)
    lock = threading.Lock()

    def work(part):
        with lock:
            seen[part] += 1

    blocks.over_rows(work, rows, row_bytes)
    assert (seen == 1).all()


def test_wide_rows_make_small_blocks_but_never_tiny_ones():
    sizes = {}
    for row_bytes in (8, 4096, 10**9):
        parts = []
        blocks.over_rows(parts.append, 1_000_000, row_bytes)
        sizes[row_bytes] = max(part.stop - part.start for part in parts)
    assert sizes == {8: blocks.BLOCK_BYTES // 8, 4096: 256, 10**9: 256}


@pytest.mark.parametrize("cores", [1, 2, 8])
def test_results_come_in_the_order_of_the_items(monkeypatch, cores):
    monkeypatch.setattr(blocks, "cores", lambda: cores)
    started = threading.Event()

    def work(item):
        if item == 0 and cores > 1:
            started.wait(10)  # the first ends last
        else:
            started.set()
        return -item

    assert blocks.in_parallel(work, range(50)) == [-item for item in range(50)]


@pytest.mark.parametrize("cores", [1, 4])
def test_done_is_called_on_the_callers_thread_once_an_item(monkeypatch, cores):
    monkeypatch.setattr(blocks, "cores", lambda: cores)
    threads = []
    blocks.in_parallel(abs, range(20), lambda: threads.append(threading.current_thread()))
    assert threads == [threading.current_thread()] * 20


@pytest.mark.parametrize("cores", [1, 4])
def test_an_error_is_raised_and_ends_the_rest(monkeypatch, cores):
    monkeypatch.setattr(blocks, "cores", lambda: cores)
    ran = []

    def work(item):
        ran.append(item)
        if item == 3:
            raise ZeroDivisionError("the fourth")

    with pytest.raises(ZeroDivisionError, match="the fourth"):
        blocks.in_parallel(work, range(5_000))
    assert len(ran) < 5_000


def test_nothing_to_do_is_done():
    assert blocks.in_parallel(abs, []) == []


def test_ctrl_c_in_done_ends_the_rest(monkeypatch):
    monkeypatch.setattr(blocks, "cores", lambda: 2)
    ran = []

    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        blocks.in_parallel(ran.append, range(5_000), interrupted)
    assert len(ran) < 5_000
