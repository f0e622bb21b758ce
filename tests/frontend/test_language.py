"""The language: entries, operations, values, expressions, scope, params.

Each test is a rule of `docs/language.md`, shown by a small spec.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.frontend.small_specs import (
    built,
    faults,
    graph,
    keys,
    op,
    outputs,
    readers,
    said,
    shape,
)

# ------------------------------------------------------------------------------------------ entries


def test_an_operation_alone_has_no_arguments() -> None:
    """`- ReLU`, `- ReLU:` and `- ReLU: {}` are one."""
    net = graph(
        """
        layers:
          - ReLU
          - ReLU:
          - ReLU: {}
        """
    )
    assert len({node.op for node in net.nodes}) == 1
    assert built(net) == {"0": "ReLU", "1": "ReLU", "2": "ReLU"}


def test_an_entry_may_stand_on_one_line() -> None:
    text = """
        layers:
          - Conv2d: {out_channels: 4, kernel_size: 1}
          - {Conv2d: {out_channels: 5, kernel_size: 1}, name: a, from: x}
        """
    assert keys(text)["a.weight"] == (5, 3, 1, 1)


def test_controls_stand_beside_the_operation() -> None:
    text = """
        layers:
          - Conv2d: {out_channels: 4, kernel_size: 1, name: a}
        """
    assert faults(text) == [("control-inside", 3)]
    assert "`name` stands beside the operation" in said(text)


def test_every_control_is_known() -> None:
    net = graph(
        """
        layers:
          - Sequential:
              - Conv2d: {out_channels: 3, kernel_size: 3, padding: 1}
                name: conv
                init: {bias: 0}
                allow: [unread-rows]
            name: first
            from: x
            when: true
            inline: false
          - Sequential:
              - Conv2d: {out_channels: 3, kernel_size: 3, padding: 1}
                share: first.conv
            for: i in range(2)
          - ReLU:
            repeat: 2
        """
    )
    assert list(built(net)) == ["first.conv", "1.0", "2.0", "3", "4"]


def test_an_entry_has_one_operation() -> None:
    assert faults("layers: [{ReLU: {}, Tanh: {}}]") == [("unknown-control", 1)]
    assert faults("layers: [{name: a}]") == [("no-operation", 1)]


# --------------------------------------------------------------------------------------- operations


def test_camel_case_is_torch_with_its_defaults() -> None:
    found = op("layers: [{Conv2d: {out_channels: 4, kernel_size: 3}}]", "0").arguments()
    assert found["stride"] == (1, 1)
    assert found["dilation"] == (1, 1)
    assert found["groups"] == 1
    assert found["bias"] is True
    assert shape("layers: [{MaxPool2d: {kernel_size: 2}}]") == (3, 4, 4)


def test_inputs_are_inferred() -> None:
    text = """
        layers:
          - Conv2d: {out_channels: 4, kernel_size: 1}
          - BatchNorm2d
          - LayerNorm
          - Flatten
          - Linear: {out_features: 5}
        """
    found = keys(text)
    assert found["0.weight"] == (4, 3, 1, 1)
    assert found["1.running_mean"] == (4,)
    assert found["2.weight"] == (8,)
    assert found["4.weight"] == (5, 4 * 8 * 8)


def test_dim_counts_as_torch_does() -> None:
    """Axis 0 is the batch, which shapes of a spec leave out."""
    assert shape("layers: [{Permute: {dims: [0, 2, 3, 1]}}]") == (8, 8, 3)
    assert shape("layers: [{Flatten: {start_dim: 2}}]") == (3, 64)
    assert shape("layers: [{Slice: {dim: -1, stop: 2}}]") == (3, 8, 2)


def test_snake_case_is_a_block() -> None:
    text = """
        blocks:
          conv:
            layers:
              - Conv2d: {out_channels: 4, kernel_size: 1}
        layers: [conv]
        """
    assert built(text) == {"0.0": "Conv2d"}


@pytest.mark.parametrize("join", ["add", "sub", "mul", "maximum", "mean"])
def test_elementwise_joins_take_sizes_equal_or_one(join: str) -> None:
    text = f"""
        inputs: {{x: [3, 8, 8], gate: [3, 1, 1], odd: [3, 4, 4]}}
        layers:
          - {join}: [x, gate]
        """
    assert shape(text) == (3, 8, 8)
    assert len(faults(text.replace("gate]", "odd]"))) == 1


def test_concat_joins_channels_and_needs_the_rest_equal() -> None:
    text = """
        inputs: {x: [3, 8, 8], y: [5, 8, 8], odd: [5, 7, 8]}
        layers:
          - concat: [x, y]
        """
    assert shape(text) == (8, 8, 8)
    assert faults(text.replace("y]", "odd]").replace("y: [5", "z: [5")) == [("concat-shape", 4)]


def test_matmul_multiplies_the_last_two_axes() -> None:
    text = """
        inputs: {a: [4, 2, 3], b: [4, 3, 5]}
        layers:
          - matmul: [a, b]
        """
    assert shape(text) == (4, 2, 5)


def test_what_torch_lacks_has_names_in_its_style() -> None:
    text = """
        layers:
          - Chunk: {chunks: 3, dim: 1}
            name: parts
          - Concat: {dim: 2}
            from: [parts.0, parts.2]
          - PadChannels: {before: 1, after: 2}
          - LayerNorm2d
          - StochasticDepth: {p: 0.1, mode: row}
        """
    assert shape(text) == (4, 16, 8)


def test_sizes_of_another_tensor_are_read_at_run_time() -> None:
    text = """
        layers:
          - MaxPool2d: {kernel_size: 4}
            name: small
          - Upsample: {like: x, mode: bilinear}
            name: big
          - CenterCrop: {like: small}
        outputs: [big, "2"]
        """
    net = graph(text)
    assert outputs(net) == {"big": (3, 8, 8), "2": (3, 2, 2)}
    assert readers(net, "big") == ("small", "x")


# ------------------------------------------------------------------------------------------- values


def conv(arguments: str, params: str = "{}") -> Any:
    """A convolution with these arguments."""
    text = f"""
        params: {params}
        layers:
          - Conv2d: {{out_channels: 4, {arguments}}}
        """
    return op(text, "0")


def test_text_in_a_number_is_an_expression() -> None:
    assert conv("kernel_size: k + 2, bias: not b", "{k: 1, b: true}").kernel_size == (3, 3)
    assert conv("kernel_size: k + 2, bias: not b", "{k: 1, b: true}").bias is False


def test_a_size_is_one_number_or_one_per_axis() -> None:
    assert conv("kernel_size: 3").kernel_size == (3, 3)
    assert conv("kernel_size: [1, 3]").kernel_size == (1, 3)
    assert conv('kernel_size: "[k, k + 2]"', "{k: 1}").kernel_size == (1, 3)
    assert conv("kernel_size: k", "{k: [1, 3]}").kernel_size == (1, 3)


def test_a_word_comes_before_an_expression() -> None:
    same = conv("kernel_size: 3, padding: same", "{same: 7}")
    given = conv("kernel_size: 3, padding: p", "{p: str = same}")
    assert same.padding == given.padding == conv("kernel_size: 3, padding: same").padding


def test_a_float_for_an_int_is_an_error_that_says_what_to_do() -> None:
    text = """
        params: {w: 3}
        layers:
          - Conv2d: {out_channels: w/2, kernel_size: 1}
        """
    assert faults(text) == [("float-for-int", 4)]
    assert "`int(...)` cuts a number to an integer, `//` divides to one" in said(text)


def test_an_operation_slot_takes_an_operation_or_a_choice_of_them() -> None:
    text = """
        params: {deep: bool = false, act: op = ReLU, last: op = Tanh if deep else Sigmoid}
        layers: [act, last]
        """
    assert built(text) == {"0": "ReLU", "1": "Sigmoid"}
    assert built(graph(text, params={"deep": True})) == {"0": "ReLU", "1": "Tanh"}


def test_null_in_an_operation_slot_is_not_built() -> None:
    text = """
        params: {norm: op = null}
        layers:
          - Conv2d: {out_channels: 4, kernel_size: 1}
          - norm
          - ReLU
        """
    assert built(text) == {"0": "Conv2d", "1": "ReLU"}


def test_bound_arguments_are_overridden_by_the_entrys() -> None:
    text = """
        params:
          act: {LeakyReLU: {negative_slope: 0.1}}
        layers:
          - act
          - act: {negative_slope: 0.2}
        """
    assert op(text, "0").arguments()["negative_slope"] == 0.1
    assert op(text, "1").arguments()["negative_slope"] == 0.2


def test_a_block_is_an_operation_too() -> None:
    text = """
        params:
          unit: {conv: {out: 4}}
        blocks:
          conv:
            params: {out: int, k: int = 1}
            layers:
              - Conv2d: {out_channels: out, kernel_size: k}
          twice:
            params: {unit: op}
            layers: [unit, unit]
        layers:
          - twice: {unit: unit}
          - unit: {k: 3, out: 5}
        """
    assert built(text) == {"0.0.0": "Conv2d", "0.1.0": "Conv2d", "1.0": "Conv2d"}
    assert keys(text)["0.1.0.weight"] == (4, 4, 1, 1)
    assert keys(text)["1.0.weight"] == (5, 4, 3, 3)


def test_the_field_of_a_row_is_an_operation() -> None:
    text = """
        params:
          rows:
            - {width: 4, act: ReLU}
            - {width: 5, act: leaky}
            - {width: 6, act: null}
        blocks:
          leaky:
            inline: true
            layers:
              - LeakyReLU: {negative_slope: 0.1}
        layers:
          - Sequential:
              - Conv2d: {out_channels: row.width, kernel_size: 1}
              - row.act
            for: row in rows
        """
    assert list(built(text).values()) == ["Conv2d", "ReLU", "Conv2d", "LeakyReLU", "Conv2d"]


def test_a_cell_of_a_table_binds_arguments() -> None:
    text = """
        params: {rows: [{act: {LeakyReLU: {negative_slope: 0.1}}}]}
        layers:
          - row.act:
            for: row in rows
        """
    assert op(text, "0").arguments()["negative_slope"] == 0.1


def test_names_are_literal_with_templates() -> None:
    text = """
        params: {i: int = 7}
        layers:
          - ReLU:
            name: i
          - ReLU:
            name: a{i + 1}
          - ReLU:
            name: b{i}.c{i*2}
        """
    assert list(built(text)) == ["i", "a8", "b7.c14"]


def test_there_is_no_dollar_no_tag_no_path() -> None:
    for value in ('"${w}"', "!!python/object:os.system {}", "os.path"):
        text = f"""
            params: {{w: 4}}
            layers:
              - Conv2d:
                  kernel_size: 1
                  out_channels: {value}
            """
        assert faults(text)


def test_yaml_1_2_decides_what_plain_words_are() -> None:
    """`no` and `010` are not what YAML 1.1 makes of them, and `1e-5` is a number."""
    text = """
        params:
          rows: [{a: no, b: 010, c: 1e-5, d: 1_000, e: 3:30, f: 0x10, g: null, h: true}]
        layers:
          - ReLU:
            name: "{row.a}_{row.b}"
            for: row in rows
        """
    assert list(built(text)) == ["no_10"]
    norm = op("layers: [{BatchNorm2d: {eps: 1e-5}}]", "0")
    assert norm.arguments()["eps"] == 1e-5


# -------------------------------------------------------------------------------------- expressions


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("2*w + 1", 9),
        ("w // 3", 1),
        ("2**w % 7", 2),
        ("6 if w > 3 and not b else 1/0", 6),
        ("ws[1] + ws[-1]", 13),
        ("sum(ws[1:])", 13),
        ("sum([v*2 for v in ws if v != 5])", 20),
        ("len(ws) + max(ws) + min(1, 2) + abs(-1)", 13),
        ("make_divisible(9, 8)", 16),
        ("int(2.5) + round(2.4) + floor(1.9) + ceil(1.1)", 7),
        ("[v for i, v in enumerate(ws)][2]", 8),
        ("[a + c for a, c in zip(ws, range(9))][2]", 10),
        ("rows[1].n", 11),
        ("input.channels + input.height + input.width", 19),
        ("input.shape[0]", 3),
        ("1 if mode == 'wide' else 2", 1),
        ("{'wide': 1}['wide'] if false else 3", None),
        ("2 if null == null else 1", 2),
        ("1 < w <= 4 and 5 or 6", 5),
    ],
)
def test_expressions_are_pythons(expression: str, value: int | None) -> None:
    text = f"""
        params:
          w: 4
          b: bool = false
          ws: [2, 5, 8]
          mode: str = wide
          rows: [{{n: 10}}, {{n: 11}}]
        layers:
          - Conv2d:
              kernel_size: 1
              out_channels: "{expression}"
        """
    if value is None:
        assert faults(text)
    else:
        assert shape(text) == (value, 8, 8)


def test_zip_stops_at_the_shortest() -> None:
    text = """
        layers:
          - ReLU:
            name: r{a}{b}
            for: a, b in zip([1, 2, 3], [4, 5])
        """
    assert list(built(text)) == ["r14", "r25"]


def test_a_tensor_has_sizes_by_name() -> None:
    text = """
        inputs: {clip: [2, 4, 6, 8], sound: [1, 16]}
        layers:
          - Conv3d:
              out_channels: clip.channels + clip.depth + clip.height + clip.width
              kernel_size: 1
            from: clip
            name: a
          - Conv1d: {out_channels: sound.length, kernel_size: 1}
            from: sound
            name: b
          - Flatten:
            name: flat
          - Linear: {out_features: flat.features // 16}
            name: c
        outputs: [a, c]
        """
    assert outputs(text) == {"a": (20, 4, 6, 8), "c": (16,)}


def test_work_and_size_are_bounded() -> None:
    for expression in ("9**9**9", "sum(range(10**9))", "len([a for a in range(10**8)])"):
        text = f"""
            layers:
              - Conv2d: {{out_channels: "{expression}", kernel_size: 1}}
            """
        assert len(faults(text)) == 1


# -------------------------------------------------------------------------------------------- scope


def test_a_block_does_not_see_the_files_params() -> None:
    text = """
        params: {classes: 10}
        blocks:
          head:
            layers:
              - Conv2d: {out_channels: classes, kernel_size: 1}
        layers: [head]
        """
    assert ("unknown-name", 6) in faults(text)
    assert "give it a param `classes`" in said(text)


def test_input_is_that_of_the_innermost_block() -> None:
    """Not that of the entry where it is written, nor of a Sequential around it."""
    text = """
        blocks:
          b:
            layers:
              - Conv2d: {out_channels: 7, kernel_size: 1}
              - Sequential:
                  - Conv2d: {out_channels: input.channels, kernel_size: 1}
                  - ReLU:
                    from: input
        layers:
          - Conv2d: {out_channels: 5, kernel_size: 1}
          - b
          - Conv2d: {out_channels: 2*input.channels, kernel_size: 1}
        """
    found = keys(text)
    assert found["1.1.0.weight"] == (5, 7, 1, 1)
    assert readers(text, "1.1.1") == ("0",)
    assert found["2.weight"] == (6, 5, 1, 1)


def test_tensors_and_params_are_two_name_spaces() -> None:
    """In an expression the param wins; where a tensor is meant, the tensor does."""
    text = """
        params: {width: 4}
        layers:
          - Conv2d: {out_channels: 9, kernel_size: 1}
            name: width
          - Conv2d: {out_channels: width, kernel_size: 1}
            from: width
        """
    assert keys(text)["1.weight"] == (4, 9, 1, 1)


def test_a_forward_reference_says_so() -> None:
    text = """
        layers:
          - ReLU:
            from: later
          - ReLU:
            name: later
        """
    assert faults(text) == [("forward-reference", 4)]


def test_a_loop_variable_is_seen_in_its_entry_alone() -> None:
    text = """
        layers:
          - Conv2d: {out_channels: i + 1, kernel_size: 1}
            for: i in range(2)
          - Conv2d: {out_channels: i, kernel_size: 1}
        """
    assert faults(text) == [("unknown-name", 5)]


# ------------------------------------------------------------------------------------------- params


def test_a_bare_type_is_required() -> None:
    text = """
        blocks:
          b:
            params: {out: int}
            layers:
              - Conv2d: {out_channels: out, kernel_size: 1}
        layers:
          - b
        """
    assert faults(text) == [("missing-argument", 8)]
    assert shape(text.replace("- b\n", "- b: {out: 6}\n")) == (6, 8, 8)


def test_a_default_may_use_earlier_params_and_the_input() -> None:
    text = """
        blocks:
          b:
            params: {a: int = input.channels, c: int = 2*a + 1}
            layers:
              - Conv2d: {out_channels: c, kernel_size: 1}
        layers:
          - b
          - b: {a: 1}
          - b: {c: 2}
        """
    found = keys(text)
    assert [found[f"{i}.0.weight"][0] for i in range(3)] == [7, 3, 2]
    later = text.replace("{a: int = input.channels, c: int = 2*a + 1}", "{a: int = c, c: int = 1}")
    assert ("unknown-name", 4) in faults(later)


def test_a_literal_is_its_own_type() -> None:
    text = """
        params: {n: 2, p: 0.5, yes_: true, ns: [4, 5]}
        layers:
          - Conv2d: {out_channels: "ns[1]", kernel_size: n, bias: yes_}
          - Dropout: {p: p}
        """
    assert shape(text) == (5, 7, 7)
    assert op(text, "1").arguments()["p"] == 0.5


def test_a_word_alone_is_no_param() -> None:
    text = """
        params: {act: ReLU}
        layers: [act]
        """
    assert ("untyped-param", 2) in faults(text)
    assert "`act: op = ReLU`" in said(text)


def test_the_default_of_a_text_may_be_quoted() -> None:
    text = """
        params: {plain: str = wide, quoted: str = 'wide'}
        layers:
          - Conv2d: {out_channels: 4 if plain == quoted else 5, kernel_size: 1}
        """
    assert shape(text) == (4, 8, 8)


def test_a_size_is_an_int_or_one_for_each_axis() -> None:
    text = """
        blocks:
          b:
            params: {k: size}
            layers:
              - Conv2d: {out_channels: 4, kernel_size: k, padding: k}
        layers:
          - b: {k: 1}
          - b: {k: [1, 3]}
        """
    assert op(text, "0.0").arguments()["kernel_size"] == (1, 1)
    assert op(text, "1.0").arguments()["kernel_size"] == (1, 3)


def test_rows_of_a_table_have_the_same_fields() -> None:
    text = """
        params:
          rows:
            - {out: 4, k: 1}
            - {out: 5, k: 3}
        layers:
          - Conv2d: {out_channels: row.out, kernel_size: row.k}
            for: row in rows
        """
    assert [shape[0] for key, shape in keys(text).items() if "weight" in key] == [4, 5]
    assert ("table-fields", 5) in faults(text.replace("{out: 5, k: 3}", "{out: 5}"))


def test_a_param_nobody_passes_is_a_local_value() -> None:
    text = """
        blocks:
          b:
            params: {w: int, half: int = w // 2}
            layers:
              - Conv2d: {out_channels: half, kernel_size: 1}
              - Conv2d: {out_channels: w - half, kernel_size: 1}
        layers:
          - b: {w: 9}
        """
    assert [s[0] for key, s in keys(text).items() if "weight" in key] == [4, 5]


def test_inputs_see_params() -> None:
    text = """
        params: {size: 8, channels: int = 1}
        inputs: {x: [channels, size, 2*size]}
        layers: [ReLU]
        """
    assert shape(text) == (1, 8, 16)
    assert shape(graph(text, params={"size": 4, "channels": 3})) == (3, 4, 8)


def test_another_name_in_inputs_is_a_symbol() -> None:
    text = """
        inputs: {a: [3, H = 8, W = 6], b: [1, H, W]}
        layers:
          - concat: [a, b]
          - Conv2d: {out_channels: H + W, kernel_size: 1}
        """
    assert shape(text) == (14, 8, 6)
    assert shape(graph(text, inputs={"H": 10})) == (16, 10, 6)
    assert shape(graph(text, inputs={"a": (3, 4, 4)})) == (8, 4, 4)


def test_the_same_symbol_is_the_same_size() -> None:
    text = """
        inputs: {a: [3, H = 8, 8], b: [1, H = 9, 8]}
        layers:
          - ReLU:
            from: a
        """
    assert ("symbol-conflict", 2) in faults(text)
