"""Packing: what comes back is what went in, to the type and the bit."""

import json
import math
from collections import Counter, OrderedDict, defaultdict, namedtuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from exact import assert_bits
from ohmgrad.packing import DTYPES, pack, unpack

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters())
keys = scalars | st.tuples(scalars, scalars)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(keys, inner)
        | st.dictionaries(keys, inner).map(OrderedDict)
    ),
)


def around(value, name="it"):
    """There and back, through JSON's text."""
    tensors: dict[str, Tensor] = {}
    return unpack(json.loads(json.dumps(pack(value, name, tensors), allow_nan=False)), tensors)


@given(values)
def test_there_and_back(value):
    assert repr(around(value)) == repr(value)  # repr tells 1 from True and 1.0, 0.0 from -0.0, tuples from lists


def test_keys_keep_their_types():
    value = {0: "a", "0": "b", (1, 2): "c", None: "d", 1.5: "e"}
    assert around(value) == value


def test_a_counter_stays_one():
    back = around(Counter([5, 5, 9]))
    assert type(back) is Counter and list(back.elements()) == [5, 5, 9]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (2, 3)])
def test_tensors(dtype, shape):
    value = torch.arange(math.prod(shape)).reshape(shape).to(dtype)
    back = around({"a": [value]})["a"][0]
    assert (back.dtype, back.shape) == (dtype, shape)
    assert_bits(back.flatten().view(torch.uint8), value.flatten().view(torch.uint8))


def test_a_tensor_that_comes_back_is_nobody_elses():
    tensors: dict[str, Tensor] = {}
    packed = pack(torch.zeros(2), "it", tensors)
    unpack(packed, tensors).add_(1)
    assert_bits(tensors["it"], torch.zeros(2))


def test_equal_names_of_places_do_not_meet():
    back = around({0: torch.zeros(1), "0": torch.ones(1), "a": {"b": torch.ones(1) * 2}, "a.b": torch.ones(1) * 3})
    assert [float(t) for t in (back[0], back["0"], back["a"]["b"], back["a.b"])] == [0, 1, 2, 3]


def test_views_come_back_as_they_look():
    x = torch.arange(6.0).reshape(2, 3)
    z = torch.complex(x, x + 1)
    for view in (x.T, x[:, 1:], x[:1].expand(4, 3), z.conj(), z.conj().imag):
        assert_bits(around(view), view.resolve_conj().resolve_neg().contiguous())


BAD = {
    "an object": object(),
    "a function": len,
    "a set": {1},
    "a defaultdict": defaultdict(list),
    "a named tuple": namedtuple("P", "x")(1),
    "an array": np.zeros(2),
    "a whole number of NumPy": np.int64(3),
    "a sparse tensor": torch.eye(2).to_sparse(),
    "a tensor without data": torch.empty(2, device="meta"),
    "a dtype that safetensors lacks": torch.zeros(2, dtype=torch.complex128),
}


@pytest.mark.parametrize("case", BAD)
def test_other_types_are_refused_by_name(case):
    with pytest.raises(TypeError, match=r"^state\.0\.buf needs "):
        pack({0: {"buf": BAD[case]}}, "state", {})
