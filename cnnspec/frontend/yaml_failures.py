"""Why YAML refuses a text: the failures of its parser, explained from the text around them.

PyYAML says what it expected; an author wants to know which of their habits it did not expect.
Each rule recognises one habit by the failure and the text near it, and the first that does
answers. Positions are offsets into the text, from 0. Nothing here reads on after a failure.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import yaml

from cnnspec.diagnostics import Diagnostic, Note, error
from cnnspec.frontend.yaml_traps import (
    block_indicator,
    key_not_text,
    quote_it,
    several_documents,
    short,
    space_missing,
    tag,
)
from cnnspec.source import Source, Span

__all__ = ["syntax"]

_GLUED = re.compile(r"(?<![\w.-])[\w.-]++:(?=[^\s:])")
_GLUED_KEY = re.compile(r"(?<![\w.-])[\w.-]++:(?=[\[{\"'(])")
_DASHES = re.compile(r"\s*+(?:- ++)*+")
_ITEM = re.compile(r"\s*+(?:- ++)++(?P<item>[^\s#-].*)")
_ENTRY = re.compile(
    r"\s*+(?:- ++)*+(?P<key>\"[^\"]*+\"|'[^']*+'|[^\s#\"'\[{][^:#\n]*+)\s*+:(?=\s|$)"
)
_COMMENT = re.compile(r"(?<!\S)#.*")
_WORD = re.compile(r"[\w.-]++")
_TAG = re.compile(r"![^\s{}]*+")
_ALIAS = re.compile(r"[*&][^\s,{}]*+")
_LATER_ENTRY = re.compile(r",?+\s*+([A-Za-z_]++)\s*+:\s")
_LAST_EXPECTED = re.compile(r"expected (key|'-' indicator|'?<(document start|block end)>)")
_OPEN, _CLOSE = "([{", ")]}"


@dataclass(frozen=True)
class _Failure:
    """A failure of PyYAML: what it says, the offset it blames, and where the construct began."""

    source: Source
    problem: str
    context: str
    at: int
    opened: int

    @property
    def text(self) -> str:
        return self.source.text

    @cached_property
    def line_start(self) -> int:
        return self.text.rfind("\n", 0, self.at) + 1

    @cached_property
    def line_end(self) -> int:
        end = self.text.find("\n", self.at)
        return len(self.text) if end < 0 else end

    @property
    def before(self) -> str:
        """The line up to the offset."""
        return self.text[self.line_start : self.at]

    @property
    def first_on_line(self) -> bool:
        return not self.before.strip()

    @cached_property
    def word(self) -> str:
        """What stands at the offset: a word, a single character, or nothing at the end."""
        found = _WORD.match(self.text, self.at)
        return found[0] if found else self.text[self.at : self.at + 1].strip()

    def span(self, start: int, end: int) -> Span:
        limit = len(self.text)
        return self.source.span(min(start, limit), min(end, limit))

    @property
    def here(self) -> Span:
        return self.span(self.at, self.at + len(self.word))

    @cached_property
    def previous(self) -> tuple[int, str]:
        """Start and text, without comment, of the last line above that is not empty."""
        end = self.line_start - 1
        while end > 0:
            start = self.text.rfind("\n", 0, end) + 1
            line = _COMMENT.sub("", self.text[start:end]).rstrip()
            if line:
                return start, line
            end = start - 1
        return 0, ""


def syntax(source: Source, failure: yaml.YAMLError) -> Diagnostic:
    """What the parser of PyYAML could not read, explained from the text around the place."""
    problem_mark = getattr(failure, "problem_mark", None)
    context_mark = getattr(failure, "context_mark", None) or problem_mark
    place = _Failure(
        source,
        getattr(failure, "problem", None) or "this is not YAML",
        getattr(failure, "context", None) or "",
        problem_mark.index if problem_mark else 0,
        context_mark.index if context_mark else 0,
    )
    for rule in _RULES:
        if found := rule(place):
            return found
    message = re.sub(r"'([^']*)'", r"`\1`", place.problem).replace(
        "did not find expected", "expected"
    )
    context = f" {place.context}" if place.context else ""
    return error("yaml-syntax", f"{message}{context}", place.here)


def _tab(place: _Failure) -> Diagnostic | None:
    tab = place.text.find("\t", place.line_start, place.at + 1)
    blamed = "tab" in place.problem or place.text[place.at : place.at + 1] == "\t"
    if tab < 0 or ("flow" in place.context and not blamed):
        return None
    if not blamed and place.text[place.line_start : tab].strip():
        return None
    return error(
        "tab-indentation",
        "a tab stands where YAML wants spaces",
        place.span(tab, tab + 1),
        help="indent with spaces only",
    )


def _block_indicator(place: _Failure) -> Diagnostic | None:
    if "block scalar" in place.context and place.at <= place.opened + 3:
        return block_indicator(place.source, place.opened)
    if "cannot start any token" in place.problem and place.word in (">", "|"):
        return block_indicator(place.source, place.at)
    return None


def _property(place: _Failure) -> Diagnostic | None:
    if "tag" in place.context:
        found = _TAG.search(place.text, place.opened)
        return tag(place.source, *found.span()) if found else None
    if "alias" not in place.context and "anchor" not in place.context:
        return None
    found = _ALIAS.match(place.text, place.opened)
    start, end = found.span() if found else (place.opened, place.at)
    anchor = place.text.startswith("&", start)
    return error(
        "yaml-alias",
        f"`{'&' if anchor else '*'}` at the start of a value begins a YAML "
        f"{'anchor' if anchor else 'alias'}",
        place.span(start, end),
        help="write `and` in an expression, or quote a text that begins with `&`"
        if anchor
        else "remove the `*`, or quote a text that begins with `*`",
    )


def _quotes(place: _Failure) -> Diagnostic | None:
    if "quoted scalar" not in place.context and "double-quoted" not in place.context:
        return None
    if "end of stream" in place.problem or "document" in place.problem:
        return error(
            "yaml-syntax",
            "this quote is never closed",
            place.span(place.opened, place.opened + 1),
            help=f"close it with {place.text[place.opened : place.opened + 1]}",
        )
    start = max(place.text.rfind("\\", 0, place.at + 2), place.opened)
    return error(
        "yaml-syntax",
        f"`{short(place.text[start : start + 2])}` is no escape sequence",
        place.span(start, start + 2),
        help="use single quotes, or double the backslash",
    )


def _flow(place: _Failure) -> Diagnostic | None:
    """Failures between the items of `{...}` or `[...]`."""
    if "parsing a flow" not in place.context or " or " not in place.problem:
        return None
    text, at, opened = place.text, place.at, place.opened
    brackets = "{}" if text.startswith("{", opened) else "[]"
    start, end, closed = _segment(text, opened, at)
    if place.word == ")":
        return error(
            "flow-comma",
            f"a comma ends a value inside `{brackets}`, also between parentheses",
            place.span(start, end),
            help=quote_it(text[start:end]),
        )
    behind = text[at - 1 : at]
    if at < len(text) and (text[at] in "[{" or behind in _CLOSE) and text[at] not in ":)]}":
        cut_at = at if text[at] in "[{" else at - 1
        if text[start : start + 2] == "${":
            inside = text[start + 2 : end].rstrip("}").strip()
            return error(
                "flow-bracket",
                f"`{text[cut_at]}` cannot stand in the middle of a plain value inside `{brackets}`",
                place.span(start, end),
                help=f"an expression needs no `${{}}`: write `{inside}`",
            )
        return error(
            "flow-bracket",
            f"`{text[cut_at]}` cannot stand in the middle of a plain value inside `{brackets}`",
            place.span(start, end),
            help=f"{quote_it(text[start:end])}, or write the entry on lines of its own",
        )
    if not closed:
        return error(
            "yaml-syntax",
            f"this `{brackets[0]}` is never closed",
            place.span(opened, opened + 1),
            notes=[Note("reading failed here", place.here)] if at < len(text) else (),
            help=f"close it with `{brackets[1]}`",
        )
    if text[start : start + 1] in ("'", '"'):
        return _after_quote(place, start, end)
    if place.word == ":":
        return error(
            "yaml-colon",
            "a second colon stands in one entry",
            place.here,
            help=f"put a comma between two entries, or {quote_it(text[start:end])}",
        )
    return error(
        "yaml-syntax",
        f"a comma or `{brackets[1]}` is missing before `{place.word}`",
        place.here,
        help="put a comma between entries, and quote a value that holds brackets",
    )


def _segment(text: str, opened: int, at: int) -> tuple[int, int, bool]:
    """The value around `at` in the flow collection that starts at `opened`.

    Commas inside brackets of any kind and inside quotes do not end it. The last result says
    whether the collection is closed at all; if not, the value ends with its line.
    """
    start, depth, position = opened + 1, 0, opened + 1
    end = len(text)
    closed = False
    while position < end:
        character = text[position]
        if character in "\"'" and not text[position - 1].isalnum():
            quote = text.find(character, position + 1)
            position = quote if quote >= 0 else position
        elif character == "#" and text[position - 1].isspace():
            newline = text.find("\n", position)
            position = newline if newline >= 0 else end
        elif character in _OPEN:
            depth += 1
        elif character in _CLOSE:
            depth -= 1
            if depth < 0:
                closed = True
                break
        elif character == "," and depth == 0:
            if position > at:
                break
            start = position + 1
        position += 1
    stop = position
    if not closed and position >= end:
        newline = text.find("\n", at)
        stop = end if newline < 0 else newline
    elif not closed:
        closed = True
    entry = _ENTRY.match(text, start, at) if text.startswith("{", opened) else None
    start = entry.end() if entry else start
    while start < at and text[start].isspace():
        start += 1
    return start, start + len(text[start : max(stop, at + 1)].rstrip()), closed


def _after_quote(place: _Failure, start: int, end: int) -> Diagnostic:
    return error(
        "yaml-syntax",
        "text follows the closing quote of a value",
        place.here,
        help=f"{quote_it(place.text[start:end])}; a value that begins with a quote ends with it",
    )


def _second_colon(place: _Failure) -> Diagnostic | None:
    """`a: b: c`, and a key inside a plain text of several lines."""
    if "mapping values are not allowed" not in place.problem:
        return None
    before = place.before
    start, line = place.previous
    if not _ENTRY.match(before + ":") or _ENTRY.match(before):
        return _second_on_line(place)
    if not line:
        return error(
            "yaml-colon",
            "this colon does not end a key",
            place.span(place.at, place.at + 1),
            help="a key is at most 1024 characters long and stands on one line",
        )
    if found := _needs_colon(place):
        return found
    if (glued := _GLUED.search(line)) and not _ENTRY.match(line):
        offset = start + glued.start()
        return space_missing(place.span(offset, start + len(line)), line[glued.start() :])
    word = before.strip()
    key_start = place.at - len(before.lstrip())
    if entry := _ENTRY.match(line):
        key = entry["key"].rstrip()
        return error(
            "yaml-colon",
            f"`{short(word)}` stands inside the value of `{short(key)}`",
            place.span(key_start, place.at),
            notes=[
                Note(f"the value of `{short(key)}` starts here", _rest(place, start, line, entry))
            ],
            help=f"indent it like `{short(key)}`, or leave the line after `{short(key)}:` free",
        )
    return _no_colon(place, start + len(line) - len(line.lstrip()), line.strip())


def _second_on_line(place: _Failure) -> Diagnostic:
    line = _COMMENT.sub("", place.text[place.line_start : place.line_end]).rstrip()
    if (glued := _GLUED_KEY.search(line)) and place.line_start + glued.start() < place.at:
        start = place.line_start + glued.start()
        return space_missing(
            place.span(start, place.line_start + glued.end()), line[glued.start() :]
        )
    entry = _ENTRY.match(line)
    value = line[entry.end() :].strip() if entry else ""
    return error(
        "yaml-colon",
        "a second colon stands in one entry",
        place.span(place.at, place.at + 1),
        label="a colon and a space end a key",
        help=quote_it(value, entry["key"].rstrip()) if entry and value else "quote the value",
    )


def _missing_colon(place: _Failure) -> Diagnostic | None:
    if "simple key" not in place.context:
        return None
    end = place.text.find("\n", place.opened)
    line = _COMMENT.sub("", place.text[place.opened : None if end < 0 else end]).rstrip()
    if glued := _GLUED.match(line):
        return space_missing(place.span(place.opened, place.opened + glued.end()), line)
    return _no_colon(place, place.opened, line)


def _no_colon(place: _Failure, start: int, written: str) -> Diagnostic:
    return error(
        "yaml-colon",
        f"no colon follows `{short(written)}`",
        place.span(start, start + len(written)),
        help=f"write `{short(written)}:` for a key, or `- {short(written)}` for a list item",
    )


def _glued_colon(place: _Failure) -> Diagnostic | None:
    if "unexpected ':'" not in place.problem:
        return None
    return error(
        "yaml-colon",
        "no space follows this colon, so it does not end a key",
        place.span(place.at, place.at + 1),
        help="put a space after the colon, or quote the value",
    )


def _after_value(place: _Failure) -> Diagnostic | None:
    """Text where only the next key, list item or the end of the text could stand."""
    if not re.search(r"expected (key|'-' indicator|'?<(document start|block end)>)", place.problem):
        return None
    if place.word == ":":
        return key_not_text(None, place.here)
    if "document start" in place.problem and place.previous[1].startswith("..."):
        return several_documents(place.source, place.at)
    if found := _needs_colon(place):
        return found
    return _misaligned(place) if place.first_on_line else _behind_value(place)


def _needs_colon(place: _Failure) -> Diagnostic | None:
    """`- ReLU` followed by a line such as `  name: act`."""
    start, line = place.previous
    item = _ITEM.fullmatch(line)
    rest = place.text[place.line_start : place.line_end]
    key = _ENTRY.match(rest)
    if not item or not key or re.search(r":(\s|$)", item["item"]) or item["item"][0] in "[{":
        return None
    indent = len(rest) - len(rest.lstrip(" "))
    if rest.lstrip().startswith("-") or indent <= len(line) - len(line.lstrip(" ")):
        return None
    offset = start + item.start("item")
    if glued := _GLUED.match(item["item"]):
        return space_missing(place.span(offset, offset + glued.end()), item["item"])
    name, control = short(item["item"]), short(key["key"])
    key_length = len(key["key"].rstrip())
    where = place.line_start + key.start("key")
    return error(
        "entry-needs-colon",
        f"`- {name}` has no colon, so `{control}` cannot stand below it",
        place.span(offset, offset + len(item["item"])),
        notes=[Note(f"`{control}` is meant for `{name}`", place.span(where, where + key_length))],
        help=f"write `- {name}:`",
    )


def _misaligned(place: _Failure) -> Diagnostic:
    in_list = "'-'" in place.problem or "block collection" in place.context
    what = "list" if in_list else "mapping"
    _, line = place.previous
    item = _ITEM.fullmatch(line)
    if item and item["item"].startswith("{") and _ENTRY.match(place.text, place.at):
        help_text = f"put `{place.word}` inside the braces, or the entry on lines without braces"
    elif place.word == "-":
        help_text = "indent the list deeper than the keys around it, or give it a key"
    elif not in_list:
        help_text = f"indent it to column {_column(place, place.opened)}"
    elif _column(place, place.at) > _column(place, place.opened):
        content = _DASHES.match(place.text, place.opened)
        column = _column(place, content.end() if content else place.opened)
        help_text = f"indent it to column {column}, or start it with `- `"
    else:
        help_text = "start it with `- `, or give the list a key of its own"
    return error(
        "yaml-syntax",
        f"`{place.word}` does not line up with the {what} around it",
        place.here,
        notes=[Note(f"the {what} starts here", place.span(place.opened, place.opened + 1))],
        help=help_text,
    )


def _behind_value(place: _Failure) -> Diagnostic:
    line = _COMMENT.sub("", place.text[place.line_start : place.line_end]).rstrip()
    entry = _ENTRY.match(line) or _DASHES.match(line)
    start = place.line_start + (entry.end() if entry else 0)
    while start < place.at and place.text[start] == " ":
        start += 1
    end = place.line_start + len(line)
    behind = place.before.rstrip()[-1:]
    if control := _LATER_ENTRY.match(place.text, place.at):
        return error(
            "yaml-syntax",
            f"`{control[1]}` follows a finished value on the same line",
            place.span(*control.span(1)),
            help=f"put `{control[1]}` on a line of its own, or the whole entry into `{{}}`",
        )
    if behind in ("'", '"'):
        return _after_quote(place, start, end)
    if behind in ("]", "}"):
        return error(
            "flow-bracket",
            f"text follows the closing `{behind}` of a value",
            place.span(start, end),
            help=quote_it(place.text[start:end]),
        )
    return error("yaml-syntax", f"`{place.word}` follows a finished value", place.here)


def _first_character(place: _Failure) -> Diagnostic | None:
    if "cannot start any token" not in place.problem:
        return None
    name = "a backtick" if place.word == "`" else f"`{place.word}`"
    return error(
        "yaml-syntax",
        f"a value cannot begin with {name} unless it is quoted",
        place.here,
        help="quote the value",
    )


def _dash(place: _Failure) -> Diagnostic | None:
    """`a: - b`, `{a: - 1}` and empty places in flow collections."""
    if "sequence entries are not allowed" in place.problem:
        return error(
            "yaml-syntax",
            "a list cannot begin on the line of its key",
            place.here,
            help="put the items on lines of their own below, or write `[a, b]`",
        )
    if "node content" not in place.problem:
        return None
    if place.word.startswith("-"):
        return error(
            "yaml-syntax",
            "`- ` begins a list item, which cannot stand inside brackets",
            place.here,
            help="write a negative number without a space, as in `-1`",
        )
    if place.word == ":":
        return key_not_text(None, place.here)
    if place.word in ("]", "}"):
        return error("yaml-syntax", f"`{place.word}` closes nothing here", place.here)
    return error(
        "yaml-syntax",
        f"a value is missing before `{place.word}`" if place.word else "a value is missing",
        place.here,
        help="write the value, or `null`; quote a text that begins with `,`, `?` or a bracket",
    )


def _column(place: _Failure, offset: int) -> int:
    return place.source.position(offset)[1]


def _rest(place: _Failure, start: int, line: str, entry: re.Match[str]) -> Span:
    value = line[entry.end() :]
    offset = start + entry.end() + len(value) - len(value.lstrip())
    return place.span(offset, start + len(line))


_RULES: tuple[Callable[[_Failure], Diagnostic | None], ...] = (
    _tab,
    _block_indicator,
    _property,
    _quotes,
    _flow,
    _second_colon,
    _missing_colon,
    _glued_colon,
    _after_value,
    _first_character,
    _dash,
)
