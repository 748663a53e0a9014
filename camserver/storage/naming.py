"""Names of archived pictures: a moment becomes a name, and a name says its moment. Pure."""

from __future__ import annotations

import re
from datetime import date, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from camserver.config.output import ARCHIVE_DIRECTIVES, OutputTable


def within(directory: Path, output: OutputTable) -> OutputTable:
    """`output` of a new inventory with the old directory: only a restart changes the directory."""
    return output.model_copy(update={"directory": directory})


def archive_name(pattern: str, moment: datetime) -> str:
    """The path below the camera's folder for a picture of `moment`.

    %L is milliseconds. The other directives are those of strftime. Its %s takes the time zone of
    the machine, so %s is made here, too.
    """
    own = {"%L": f"{moment.microsecond // 1000:03d}", "%s": str(int(moment.timestamp()))}
    return moment.strftime("".join(own.get(part, part) for part in re.split(r"(%.)", pattern)))


def numbered(name: str, number: int) -> str:
    """The name of the number-th picture of the same moment: a.jpg, a-1.jpg, a-2.jpg."""
    stem, dot, suffix = name.rpartition(".")
    return name if number == 0 else f"{stem}-{number}{dot}{suffix}"


def archive_regex(pattern: str) -> re.Pattern[str]:
    """A pattern that matches exactly the paths that `archive_name` and `numbered` can give.

    camserver must not delete other files in the folder. The first use of each directive is a group
    of its name.
    """
    stem, _, suffix = pattern.rpartition(".")
    used: set[str] = set()
    body = ""
    for part in re.split(r"(%.)", stem):
        if not part.startswith("%"):
            body += re.escape(part)
        elif part[1] in used or not part[1].isalpha():
            body += ARCHIVE_DIRECTIVES[part[1]]
        else:
            used.add(part[1])
            body += f"(?P<{part[1]}>{ARCHIVE_DIRECTIVES[part[1]]})"
    return re.compile(rf"{body}(?:-\d+)?\.{re.escape(suffix)}")


class ArchiveNames:
    """The names that a pattern gives in a time zone, and the times that they say."""

    def __init__(self, pattern: str, timezone: str) -> None:
        self._regex = archive_regex(pattern)
        self.depth = pattern.count("/")
        """How many folders a name has."""
        self._zone = ZoneInfo(timezone)
        said = set(self._regex.groupindex)
        dated = ("m" in said and "d" in said) or "j" in said
        timed = said >= {"M", "S"} and ("H" in said or said >= {"I", "p"})
        self._says_time = "s" in said or (dated and timed and bool(said & {"Y", "y"}))

    @property
    def are_chronological(self) -> bool:
        """Whether the order of the names is the order of their times."""
        order = list(self._regex.groupindex)
        return self._says_time and (order[:1] == ["s"] or order[:6] == [*"YmdHMS"])

    def match(self, path: str) -> re.Match[str] | None:
        """The parts of a path below a camera's folder. None when the pattern can't give it."""
        return self._regex.fullmatch(path)

    def taken_at(self, match: re.Match[str]) -> float | None:
        """The capture time that a name says, in seconds since 1970.

        None when the name does not say it to the second, or says an hour that a change to winter
        time repeats.
        """
        if not self._says_time:
            return None
        said = match.groupdict()
        fraction_s = int(said["f"]) / 1e6 if said.get("f") else int(said.get("L") or 0) / 1e3
        try:
            if "s" in said:
                return int(said["s"]) + fraction_s
            moment = self._moment(said)
        except ValueError:  # the digits are no date
            return None
        if moment.tzinfo is self._zone and moment.utcoffset() != moment.replace(fold=1).utcoffset():
            return None
        return moment.timestamp() + fraction_s

    def _moment(self, said: dict[str, str]) -> datetime:
        """The date and time in a name, to the second. Raises ValueError."""
        year = int(said["Y"]) if "Y" in said else 2000 + int(said["y"])
        hour = int(said["H"]) if "H" in said else int(said["I"]) % 12 + 12 * _is_pm(said["p"])
        if "m" in said and "d" in said:
            day = date(year, int(said["m"]), int(said["d"]))
        else:
            day = date(year, 1, 1) + timedelta(days=int(said["j"]) - 1)
        zone = datetime.strptime(said["z"], "%z").tzinfo if said.get("z") else self._zone
        return datetime.combine(day, time(hour, int(said["M"]), int(said["S"])), zone)


def _is_pm(word: str) -> bool:
    return word == time(12).strftime("%p")
