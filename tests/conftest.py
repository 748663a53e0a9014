"""For all tests: signals as a terminal gives them."""

import signal

# A shell ignores SIGINT in what it runs in the background, and so would all that is started here.
# Tests press Ctrl-C.
for number in (signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(number) is signal.SIG_IGN:
        default = signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL
        signal.signal(number, default)
