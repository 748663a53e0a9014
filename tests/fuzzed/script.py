"""Numbers, choices and pieces of text from the bytes of a fuzzer."""

from __future__ import annotations

from typing import Any


class Script:
    """Takes numbers and pieces from the input bytes. Numbers are 0 when the bytes are used up."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, count: int) -> bytes:
        piece = self.data[self.at : self.at + count]
        self.at += count
        return piece

    def below(self, limit: int) -> int:
        return int.from_bytes(self.take(1) or b"\0", "big") % limit

    def one(self, choices: tuple[Any, ...]) -> Any:
        return choices[self.below(len(choices))]

    def spoil(self, text: bytes) -> bytes:
        """`text`, in most cases unchanged, otherwise with a few changed bytes."""
        for _ in range(max(0, self.below(8) - 5)):
            at = self.below(max(1, len(text)))
            text = text[:at] + self.take(self.below(6)) + text[at + 1 :]
        return text

    @property
    def over(self) -> bool:
        return self.at >= len(self.data)
