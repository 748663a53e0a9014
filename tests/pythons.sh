#!/usr/bin/env bash
# The unit tests on every Python >= 3.11 of this machine, each minor version once; the one of .venv
# has had them.
set -euo pipefail
cd "$(dirname "$0")/.."
minor() {   # 3.12 and the like; nothing for what is older, or no Python
  "$1" -c 'import sys; sys.version_info >= (3, 11) and print("%d.%d" % sys.version_info[:2])' \
    2>/dev/null || true
}
declare -A done=(["$(minor .venv/bin/python)"]=1)
shopt -s nullglob
commands=$(compgen -c python3 | grep -xE 'python3(\.[0-9]+)?' | sort -Vu)
for python in $commands "$HOME"/.pyenv/versions/*/bin/python3 /opt/python*/bin/python3; do
  version=$(minor "$python")
  [ -n "$version" ] && [ -z "${done[$version]:-}" ] || continue
  done[$version]=1
  venv=.venv-$version
  installed=$venv/.installed
  if [ ! -e "$installed" ] || [ pyproject.toml -nt "$installed" ] ||
      [ constraints.txt -nt "$installed" ]; then
    "$python" -m venv --clear "$venv" || {
      echo "Python $version makes no virtual environments: left out" >&2
      continue
    }
    "$venv/bin/pip" install -q --disable-pip-version-check -c constraints.txt wheel setuptools
    "$venv/bin/pip" install -q --disable-pip-version-check -c constraints.txt -e '.[unit]'
    touch "$installed"
  fi
  echo "unit tests on Python $version"
  "$venv/bin/pytest" -q -n 2 tests/unit "$@"
done
