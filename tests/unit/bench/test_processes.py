import pytest
from bench import processes
from bench.processes import Clock


def test_a_program_name_may_hold_blanks_and_parentheses() -> None:
    line = "42 (a ) b (c) S 7 42 42 0 -1 4194560 1 0 0 0 250 150 0 0 20 0 1 0 100 0 0"
    parent, seconds = processes.parse_stat(line)
    assert parent == 7
    assert seconds == pytest.approx(400 / processes.TICKS)


def test_machine_counts_work_and_neither_idling_nor_waiting() -> None:
    assert processes.parse_machine("cpu  10 20 30 4000 5000 60 70 80 0 0\ncpu0 1 1") == pytest.approx(
        (10 + 20 + 30 + 60 + 70) / processes.TICKS
    )


def test_resident_memory() -> None:
    assert processes.parse_resident("Name:\tx\nVmRSS:\t   2048 kB\n") == 2.0
    assert processes.parse_resident("Name:\tended\n") == 0.0


def test_descendants_leave_others_out() -> None:
    parents = {2: 1, 3: 2, 4: 3, 5: 1, 6: 5, 9: 8}
    assert processes.descendants(1, parents) == {1, 2, 3, 4, 5, 6}
    assert processes.descendants(1, parents, others={3}) == {1, 2, 5, 6}


def test_foreign_work_is_what_no_named_process_did() -> None:
    begin = Clock(10.0, {"a": 1.0, "b": 2.0}, 100.0)
    end = Clock(14.0, {"a": 2.0, "b": 3.0}, 106.0)
    assert processes.spent(begin, end) == {"a": 1.0, "b": 1.0}
    assert processes.foreign_cores(begin, end) == pytest.approx((6 - 2) / 4)


def test_foreign_work_is_never_negative() -> None:
    begin, end = Clock(0.0, {"a": 0.0}, 0.0), Clock(1.0, {"a": 1.01}, 1.0)
    assert processes.foreign_cores(begin, end) == 0.0
