"""The language: paths, references, loops, entries that are not built.

Each test is a rule of `docs/language.md`, shown by a small spec. Paths of entries are the
keys of the state dict without their last part.
"""

from __future__ import annotations

import pytest

from tests.frontend.small_specs import built, faults, graph, keys, outputs, readers, said, shape

# -------------------------------------------------------------------------------------------- paths


def test_a_path_is_the_name_or_else_the_position() -> None:
    """A named entry takes its position too."""
    text = """
        layers:
          - ReLU
          - ReLU:
            name: act
          - ReLU
        """
    assert list(built(text)) == ["0", "act", "2"]


def test_blocks_and_sequentials_are_levels() -> None:
    text = """
        blocks:
          unit:
            layers:
              - Sequential:
                  - ReLU
                name: body
              - ReLU
        layers:
          - unit
          - unit:
            name: second
        """
    assert list(built(text)) == ["0.body.0", "0.1", "second.body.0", "second.1"]


def test_dotted_names_are_levels() -> None:
    text = """
        layers:
          - Conv2d: {out_channels: 3, kernel_size: 1}
            name: inner.{i}
            for: i in range(2)
          - ReLU:
            name: a.b.c
        """
    assert list(built(text)) == ["inner.0", "inner.1", "a.b.c"]


def test_a_named_loop_without_a_template_is_a_level() -> None:
    """Its turns are numbered as far as they are built. With a template they are entries."""
    text = """
        layers:
          - ReLU:
            name: acts
            for: i in range(4)
            when: i != 1
          - ReLU:
            name: act{i}
            for: i in range(2)
          - ReLU
        """
    assert list(built(text)) == ["acts.0", "acts.1", "acts.2", "act0", "act1", "3"]


def test_each_turn_of_an_unnamed_loop_takes_a_position() -> None:
    text = """
        layers:
          - ReLU
          - Tanh:
            repeat: 3
          - ReLU
        """
    assert list(built(text)) == ["0", "1", "2", "3", "4"]


def test_joins_never_add_a_level() -> None:
    """Their entries are the caller's, and the join itself comes after them."""
    text = """
        layers:
          - ReLU
          - add:
              - Conv2d: {out_channels: 3, kernel_size: 1}
              - Conv2d: {out_channels: 3, kernel_size: 1}
                name: named
          - ReLU
        """
    assert sorted(keys(text)) == ["1.bias", "1.weight", "named.bias", "named.weight"]
    assert list(built(text).values()) == ["ReLU", "Conv2d", "Conv2d", "add", "ReLU"]


def test_a_branch_that_is_a_list_is_a_sequential_of_its_name() -> None:
    text = """
        layers:
          - concat:
              skip: []
              long:
                - Conv2d: {out_channels: 4, kernel_size: 1}
                - ReLU
              short: {Conv2d: {out_channels: 5, kernel_size: 1}}
              plain: {ReLU: {}}
        """
    net = graph(text)
    assert list(built(net))[:4] == ["long.0", "long.1", "short", "plain"]
    (join,) = [path for path, op in built(net).items() if op == "concat"]
    assert readers(net, join) == ("x", "long.1", "short", "plain")
    assert shape(net) == (3 + 4 + 5 + 3, 8, 8)


def test_inline_adds_no_level() -> None:
    """On a Sequential, on a call, and on the definition of a block."""
    text = """
        blocks:
          pair:
            layers: [ReLU, Tanh]
          always:
            inline: true
            layers: [ReLU, Tanh]
        layers:
          - Sequential: [ReLU, Tanh]
            inline: true
          - pair:
            inline: true
          - always
          - always:
            name: named
        """
    assert list(built(text)) == ["0", "1", "2", "3", "4", "5", "named.0", "named.1"]


def test_entries_of_an_inline_group_are_the_callers() -> None:
    text = """
        layers:
          - Sequential:
              - ReLU
              - Tanh:
                name: t
            inline: true
          - add: [0, t]
            name: sum
        """
    assert readers(text, "sum") == ("0", "t")


def test_a_loop_in_a_branch_is_a_level_of_its_name() -> None:
    """A single entry's turns all go into the join; in a list they follow one another."""
    text = """
        layers:
          - concat:
              b: {Conv2d: {out_channels: 4, kernel_size: 1}, for: i in range(2)}
            name: sum
        """
    assert readers(text, "sum") == ("b.0", "b.1")
    chained = text.replace("{Conv2d", "[{Conv2d").replace("range(2)}", "range(2)}]")
    assert readers(chained, "sum") == ("b.1",)
    assert readers(chained, "b.1") == ("b.0",)


def test_names_are_letters_digits_underscores_dashes_and_dots() -> None:
    text = "layers: [{{ReLU: {{}}, name: '{}'}}]"
    assert list(built(text.format("A-b_9.c"))) == ["A-b_9.c"]
    for name in ("a b", "a/b", ".a", "a..b", "ä"):
        assert [code for code, _ in faults(text.format(name))] == ["bad-name"]


@pytest.mark.parametrize("name", ["forward", "training", "half", "parameters", "x.eval"])
def test_names_of_torch_modules_are_taken(name: str) -> None:
    text = f"layers: [{{ReLU: {{}}, name: {name}}}]"
    assert faults(text) == [("reserved-name", 1)]


def test_two_entries_never_have_one_path() -> None:
    text = """
        layers:
          - ReLU:
            name: a
          - ReLU:
            name: a
        """
    assert faults(text) == [("duplicate-name", 6)]
    assert faults(text.replace("name: a", 'name: "1"', 1).replace("name: a", "when: true"))


def test_the_key_of_a_parameter_is_its_path() -> None:
    text = """
        layers:
          - Parameter: {shape: [3, 1, 1], value: 0.5}
            name: scale
          - mul: [scale, x]
        """
    assert keys(text) == {"scale": (3, 1, 1)}


# --------------------------------------------------------------------------------------- references


def test_without_from_an_entry_follows_the_one_above() -> None:
    text = """
        layers:
          - ReLU
          - Tanh
          - ReLU:
            from: x
        """
    assert [readers(text, path) for path in ("0", "1", "2")] == [("x",), ("0",), ("x",)]


def test_references_are_paths_relative_to_the_scope() -> None:
    """Positions too, and they may enter a Sequential."""
    text = """
        layers:
          - Sequential:
              - ReLU
              - Sequential:
                  - Tanh
                name: deep
              - ReLU
            name: features
          - ReLU:
            from: features.1.0
            name: a
          - ReLU:
            from: features.deep
            name: b
          - add: [features.0, a, b, features]
            name: sum
        """
    text = text.replace("features.1.0", "features.deep.0")
    assert readers(text, "a") == ("features.deep.0",)
    assert readers(text, "b") == ("features.deep.0",)
    assert readers(text, "sum") == ("features.0", "a", "b", "features.2")


def test_references_see_the_enclosing_scopes_of_the_block() -> None:
    """The nearest one first."""
    text = """
        blocks:
          b:
            layers:
              - ReLU:
                name: a
              - ReLU:
                name: c
              - Sequential:
                  - ReLU:
                    name: a
                  - ReLU:
                    from: c
                  - add: [a, c]
                    name: sum
                name: inner
        layers: [b]
        """
    assert readers(text, "0.inner.1") == ("0.c",)
    assert readers(text, "0.inner.sum") == ("0.inner.a", "0.c")


def test_the_inside_of_a_block_is_its_own() -> None:
    text = """
        blocks:
          b:
            layers:
              - ReLU:
                name: a
              - ReLU
        layers:
          - ReLU:
            name: outer
          - b:
            name: block
          - ReLU:
            from: block.a
        """
    assert faults(text) == [("unknown-tensor", 14)]
    within = text.replace("      - ReLU\n", "      - ReLU:\n                from: outer\n", 1)
    assert ("unknown-tensor", 8) in faults(within)


def test_a_block_exposes_outputs() -> None:
    """As a list of its names, or with names of their own."""
    text = """
        blocks:
          b:
            outputs: [low, high]
            layers:
              - Conv2d: {out_channels: 4, kernel_size: 1}
                name: low
              - Conv2d: {out_channels: 5, kernel_size: 1}
                name: high
        layers:
          - b:
            name: e
          - concat: [e.low, e.high]
        """
    assert shape(text) == (9, 8, 8)
    renamed = text.replace("[low, high]", "{first: low, last: high}")
    assert shape(renamed.replace("e.low, e.high", "e.first, e.last, e.last")) == (14, 8, 8)


def test_with_one_output_the_name_of_the_entry_is_the_tensor() -> None:
    text = """
        blocks:
          b:
            outputs: [low]
            layers:
              - ReLU:
                name: low
              - Tanh:
                allow: [dead-entry]
        layers:
          - b:
            name: e
          - ReLU
          - add: [e, "1"]
        """
    assert readers(text, "2") == ("e.low", "1")


def test_results_of_an_operation_with_several_are_numbered() -> None:
    text = """
        layers:
          - Chunk: {chunks: 3, dim: 1}
            name: parts
          - concat: [parts.2, parts.0]
        """
    assert readers(text, "1") == ("parts.2", "parts.0")


def test_after_several_outputs_the_next_entry_needs_from() -> None:
    text = """
        layers:
          - Chunk: {chunks: 3, dim: 1}
            name: parts
          - ReLU
        """
    assert faults(text) == [("needs-from", 5)]
    assert "`parts.0`" in said(text)


def test_a_template_may_stand_wherever_a_name_may() -> None:
    text = """
        params: {i: 1}
        layers:
          - ReLU:
            name: a{i}
          - ReLU:
            from: a{i}
            name: b
          - add: ["a{i}", b]
          - Upsample: {like: "a{i}"}
        outputs: ["a{i}", "3"]
        """
    assert readers(text, "b") == ("a1",)
    assert list(outputs(text)) == ["a1", "3"]


def test_text_in_a_join_is_a_tensor_and_a_mapping_an_entry() -> None:
    """Each entry is fed the current tensor; a loop's turns each read the same."""
    text = """
        layers:
          - Tanh:
            name: t
          - concat:
              - x
              - ReLU: {}
              - Conv2d: {out_channels: i, kernel_size: 1}
                for: i in [4, 5]
            name: join
        """
    net = graph(text)
    assert shape(net) == (3 + 3 + 4 + 5, 8, 8)
    assert readers(net, "join")[0] == "x"
    fed = {readers(net, path) for path, op in built(net).items() if op in ("ReLU", "Conv2d")}
    assert fed == {("t",)}


# -------------------------------------------------------------------------------------------- loops


def test_a_loop_is_its_entry_written_out() -> None:
    """Controls included; it chains unless it says `from`."""
    text = """
        layers:
          - Conv2d: {out_channels: 4 + i, kernel_size: 1}
            for: i in range(3)
            name: c{i}
          - Conv2d: {out_channels: 4 + i, kernel_size: 1}
            for: i in range(2)
            from: c{i}
            name: d{i}
            when: i > 0
        """
    assert [readers(text, f"c{i}") for i in range(3)] == [("x",), ("c0",), ("c1",)]
    level = text.replace("name: c{i}", "name: c").replace("from: c{i}", "from: c.{i}")
    assert [readers(level, f"c.{i}") for i in range(3)] == [("x",), ("c.0",), ("c.1",)]
    assert readers(text, "d1") == ("c1",)
    assert "d0" not in built(text)


def test_a_turn_may_read_the_one_before() -> None:
    text = """
        layers:
          - ReLU:
            name: r0
          - add: ["r{i}", x]
            for: i in range(2)
            name: r{i + 1}
        """
    assert readers(text, "r2") == ("r1", "x")


def test_several_variables_take_a_tuple_apart() -> None:
    text = """
        layers:
          - Conv2d: {out_channels: c, kernel_size: k}
            for: i, (c, k) in enumerate(zip([4, 5], [1, 3]))
            name: conv{i}
        """
    assert keys(text)["conv1.weight"] == (5, 4, 3, 3)


def test_the_bare_name_of_a_loop_is_its_last_turn() -> None:
    text = """
        layers:
          - ReLU:
            name: acts
            repeat: 3
          - Tanh:
            from: x
          - add: [acts, acts.0]
            name: sum
        """
    assert readers(text, "sum") == ("acts.2", "acts.0")


def test_an_empty_loop_is_not_built() -> None:
    text = """
        layers:
          - ReLU
          - Tanh:
            name: t
            repeat: 0
          - ReLU
          - add: [t, "1"]
        """
    assert list(built(text)) == ["0", "1", "2"]
    assert readers(text, "2") == ("0", "1")


def test_a_group_loops_as_an_inline_sequential() -> None:
    text = """
        layers:
          - Sequential:
              - Conv2d: {out_channels: 4, kernel_size: 1}
                name: conv{i}
              - ReLU
            for: i in range(2)
            inline: true
        """
    assert list(built(text)) == ["conv0", "1", "conv1", "3"]
    assert readers(text, "conv1") == ("1",)


def test_loops_stand_in_loops() -> None:
    text = """
        layers:
          - Sequential:
              - ReLU:
                for: j in range(i + 1)
            for: i in range(2)
            name: stage{i}
        """
    assert list(built(text)) == ["stage0.0", "stage1.0", "stage1.1"]


# ---------------------------------------------------------------------------------------- not built


def test_what_is_not_built_takes_no_position() -> None:
    text = """
        layers:
          - ReLU:
            when: false
          - Tanh
        """
    assert built(text) == {"0": "Tanh"}


def test_its_name_stands_for_its_input() -> None:
    text = """
        layers:
          - ReLU:
            name: a
          - Conv2d: {out_channels: 9, kernel_size: 1}
            name: down
            from: x
            when: false
          - add: [down, a]
            name: sum
          - ReLU:
            from: down
            name: last
        """
    assert readers(text, "sum") == ("x", "a")
    assert readers(text, "last") == ("x",)


def test_what_follows_reads_what_it_would_have_read() -> None:
    text = """
        layers:
          - ReLU
          - Tanh:
            from: x
            when: false
          - Sigmoid
        """
    assert readers(text, "1") == ("x",)


def test_so_do_its_outputs_and_what_is_inside() -> None:
    text = """
        blocks:
          b:
            outputs: {p: a, q: c}
            layers:
              - ReLU:
                name: a
              - ReLU:
                name: c
        layers:
          - Tanh:
            name: t
          - b:
            name: e
            when: false
          - add: [e.p, e.q, e]
            name: sum
        """
    assert readers(text, "sum") == ("t", "t", "t")


def test_what_is_inside_a_sequential_stands_for_its_input_too() -> None:
    text = """
        layers:
          - Tanh:
            name: t
          - Sequential:
              - ReLU:
                name: a
            name: s
            when: false
          - add: [s.a, s]
            name: sum
        """
    assert readers(text, "sum") == ("t", "t")


def test_what_is_inside_an_inline_group_does_as_well() -> None:
    text = """
        layers:
          - Tanh:
            name: t
          - Sequential:
              - ReLU:
                name: a
            inline: true
            when: false
          - add: [a, x]
            name: sum
        """
    assert readers(text, "sum") == ("t", "x")


def test_an_operation_that_is_null_does_as_well() -> None:
    """Within a join, too."""
    text = """
        params: {norm: op = null}
        layers:
          - Tanh:
            name: t
          - norm:
            name: n
          - add:
              - n
              - norm: {}
              - ReLU: {}
                when: false
            name: sum
        """
    assert readers(text, "sum") == ("t", "t", "t")


def test_outputs_of_the_network_may_name_it() -> None:
    text = """
        layers:
          - ReLU:
            name: a
          - Tanh:
            name: b
            when: false
        outputs: {o: b}
        """
    assert outputs(text) == {"o": (3, 8, 8)}


def test_with_several_inputs_it_stands_for_the_entry_above() -> None:
    text = """
        layers:
          - ReLU:
            name: a
          - Tanh:
            name: b
          - add: [x, a]
            name: sum
            when: false
          - Sigmoid:
            from: sum
            name: last
        """
    assert readers(text, "last") == ("b",)


def test_in_a_block_each_call_decides() -> None:
    text = """
        blocks:
          b:
            params: {out: int}
            layers:
              - Conv2d: {out_channels: out, kernel_size: 1}
                name: down
                when: input.channels != out
              - add: [down, down]
        layers:
          - b: {out: 3}
          - b: {out: 4}
        """
    assert sorted(keys(text)) == ["1.down.bias", "1.down.weight"]
