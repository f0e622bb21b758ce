"""`cnnspec schema`: the JSON Schema of the language or of recipes, for editors."""

from __future__ import annotations

import argparse

from cnnspec.cli.output import write_result
from cnnspec.cli.output_arguments import add_output
from cnnspec.cli.spec_arguments import load_spec
from cnnspec.frontend.schema import schema_of

NAME = "schema"
SUMMARY = "the JSON Schema of the language, for editors"
DESCRIPTION = """\
Print the JSON Schema (draft-07) of the language, or one that also completes a
spec's own blocks and params, or with --recipe that of recipes for training.
"""
EPILOG = """\
examples:
  cnnspec schema -o cnnspec.schema.json
  cnnspec schema net.yaml -o net.schema.json
  cnnspec schema --recipe -o recipe.schema.json

In VS Code with the YAML extension, the first line of a spec chooses its schema:
  # yaml-language-server: $schema=cnnspec.schema.json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "spec", metavar="SPEC", nargs="?", help="complete this spec's own blocks and params too"
    )
    which.add_argument("--recipe", action="store_true", help="the schema of recipes")
    add_output(parser)


def run(options: argparse.Namespace) -> int:
    """Print the schema."""
    from json import dumps

    if options.recipe:
        from cnnspec.training.recipe.schema import recipe_schema

        write_result(dumps(recipe_schema(), indent=1), options.output)
        return 0
    document = None if options.spec is None else load_spec(options.spec)[0].document
    write_result(dumps(schema_of(document), indent=1), options.output)
    return 0
