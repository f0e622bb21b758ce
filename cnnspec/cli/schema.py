"""`cnnspec schema`: the JSON Schema of the language, for editors."""

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
spec's own blocks and params.
"""
EPILOG = """\
examples:
  cnnspec schema -o cnnspec.schema.json
  cnnspec schema net.yaml -o net.schema.json

In VS Code with the YAML extension, the first line of a spec chooses its schema:
  # yaml-language-server: $schema=cnnspec.schema.json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "spec", metavar="SPEC", nargs="?", help="complete this spec's own blocks and params too"
    )
    add_output(parser)


def run(options: argparse.Namespace) -> int:
    """Print the schema."""
    from json import dumps

    document = None if options.spec is None else load_spec(options.spec)[0].document
    write_result(dumps(schema_of(document), indent=1), options.output)
    return 0
