"""Set-up for all tests: signals are handled as in a terminal, and the longest tests begin first."""

import faulthandler
import gc
import signal
from collections.abc import Generator, Iterator

import pytest
from _pytest.faulthandler import fault_handler_stderr_fd_key

# A shell makes its background jobs ignore SIGINT, and nohup makes its command ignore SIGHUP. All
# processes started here would inherit that. But tests send SIGINT (Ctrl-C), and close terminals.
for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        default = signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL
        signal.signal(number, default)


LONGEST = ("tests/systemd/", "test_two_hours_of_a_surveillance_clip", "test_two_hundred_cameras")
"""A test that begins last is waited for by all other processes, which have nothing to do then."""


TEARDOWN_S = 300.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not any(name in item.nodeid for name in LONGEST))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    """A teardown that hangs ends its process. After a failed test no other limit is left."""
    stderr = item.config.stash[fault_handler_stderr_fd_key]  # fd 2 is captured
    faulthandler.dump_traceback_later(TEARDOWN_S, file=stderr, exit=True)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.fixture(autouse=True)
def _collect_all_garbage() -> Iterator[None]:
    """A daemon in a test's process must not hide what that test leaves open (memory.settle)."""
    yield
    gc.unfreeze()
