"""Set-up for all tests: signals are handled as in a terminal."""

import signal

# A shell makes its background jobs ignore SIGINT, and nohup makes its command ignore SIGHUP. All
# processes started here would inherit that. But tests send SIGINT (Ctrl-C), and close terminals.
for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        default = signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL
        signal.signal(number, default)
