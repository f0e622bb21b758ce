#!/bin/sh
# Sets up a clean virtual environment and runs everything that guards this project: lint, format,
# types, the import contract and all tests. Needs nothing but Python 3.11 or newer.
#
#   sh tests/run.sh                  everything
#   sh tests/run.sh tests/geometry   pytest's own arguments instead of the whole suite
set -eu
cd "$(dirname "$0")/.."

environment=${CNNSPEC_TEST_ENV:-.venv-test}
${PYTHON:-python3} -m venv --clear "$environment"
python="$environment/bin/python"

"$python" -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
# Oracles. torchvision's own pin of torch may have no CPU build, and timm wants torchvision.
"$python" -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps \
  torchvision timm

"$python" -m ruff check .
"$python" -m ruff format --check .
"$python" -m mypy
"$environment/bin/lint-imports"
"$python" -m pytest -n 2 "$@"
