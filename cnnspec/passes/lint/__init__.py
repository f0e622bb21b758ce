"""What is legal in a network and yet probably not meant, or not wise.

A rule is a function of the graph and of earlier facts, and finds one code; each finding is about an
entry, at its place in the spec. What a loop wrote out many times is reported once. Some rules
always run, the others when `Options.lint` names them. Nothing here knows an op's name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from cnnspec.diagnostics import Diagnostic, EnvironmentFailure, did_you_mean
from cnnspec.ir import Graph
from cnnspec.passes.facts import Facts, Options
from cnnspec.passes.lint.channels import odd_channels
from cnnspec.passes.lint.dead import dead_entries
from cnnspec.passes.lint.deployment import not_quantizable, not_tensorrt
from cnnspec.passes.lint.fields import field_outgrown, field_smaller_than_input
from cnnspec.passes.lint.finding import Finding, folded
from cnnspec.passes.lint.norms import bias_before_norm, unfoldable_norm
from cnnspec.passes.lint.windows import kernel_exceeds_input, skipped_positions, unread_rows

__all__ = ["RULES", "Lint", "Rule", "lint", "lint_rules"]


@dataclass(frozen=True, slots=True)
class Lint:
    """Findings in the order of the spec's text."""

    diagnostics: tuple[Diagnostic, ...]


class Rule(NamedTuple):
    """What finds a code, what it looks for, and whether only on request."""

    find: Callable[[Graph, Facts], Iterator[Finding]]
    about: str
    on_request: bool = True


RULES: Mapping[str, Rule] = {
    "unread-rows": Rule(unread_rows, "input at the end that no window reads", False),
    "kernel-exceeds-input": Rule(kernel_exceeds_input, "kernels larger than their input", False),
    "dead-entry": Rule(dead_entries, "entries that no output depends on", False),
    "bias-before-norm": Rule(bias_before_norm, "biases that a norm takes away", False),
    "skipped-positions": Rule(skipped_positions, "strides larger than the kernel"),
    "field-smaller-than-input": Rule(field_smaller_than_input, "a final field that is too small"),
    "field-outgrown": Rule(field_outgrown, "a field that covers the input long before the end"),
    "odd-channels": Rule(odd_channels, "channels that are no multiple of 8"),
    "unfoldable-norm": Rule(unfoldable_norm, "norms that inference cannot fold away"),
    "not-quantizable": Rule(not_quantizable, "operations without an int8 form"),
    "not-tensorrt": Rule(not_tensorrt, "operations that TensorRT does not run"),
}
"""All rules by their code."""


def lint_rules(names: Iterable[str]) -> frozenset[str]:
    """Codes by name; `all` stands for all. Raises `EnvironmentFailure` for a name of none."""
    found: set[str] = set()
    for name in names:
        if name != "all" and name not in RULES:
            near = did_you_mean(name, (*RULES, "all"))
            known = ", ".join(code for code, rule in RULES.items() if rule.on_request)
            raise EnvironmentFailure(
                f"there is no lint rule `{name}`", help=near or f"rules are {known}, or `all`"
            )
        found.update(RULES if name == "all" else (name,))
    return frozenset(found)


def lint(graph: Graph, facts: Facts) -> Lint:
    """Run the rules that always run, and those asked for."""
    asked = facts[Options].lint
    findings = [
        finding
        for code, rule in RULES.items()
        if not rule.on_request or code in asked
        for finding in rule.find(graph, facts)
        if finding.diagnostic.code not in finding.node.allow
    ]
    return Lint(folded(findings))
