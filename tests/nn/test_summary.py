"""The table of what became of each layer."""

from torch import nn

from ohmgrad import AnalogSGD, Rule, TikiTaka, convert, summary
from ohmgrad.devices import Ideal, SoftBounds


def test_rows():
    model = nn.Sequential(
        nn.Conv1d(4, 4, 3, groups=2), nn.ReLU(), nn.LSTM(5, 3, bidirectional=True), nn.LayerNorm(6), nn.Linear(6, 2)
    )
    rules = [Rule("4", digital=True), Rule("2", device=SoftBounds(), algorithm=TikiTaka())]
    table = summary(convert(model, device=Ideal(), rules=rules))
    conv, lstm, norm, head = table.rows
    assert (conv.name, conv.kind, conv.shapes) == ("0", "AnalogConv1d", ((2, 2, 6),))
    assert (conv.crossbars, conv.crosspoints, conv.digital) == (2, 24, 4)
    assert (conv.device, conv.algorithm) == (Ideal(), AnalogSGD())
    # Two directions, each with an input and a hidden tile of two crossbars.
    assert lstm.shapes == ((12, 5), (12, 3)) * 2 and lstm.crossbars == 8
    assert lstm.crosspoints == 2 * 2 * (60 + 36) and lstm.digital == 48
    assert (lstm.device, lstm.algorithm) == (SoftBounds(), TikiTaka())
    for row, kind, digital in ((norm, "LayerNorm", 12), (head, "Linear", 14)):
        assert (row.kind, row.shapes, row.crossbars, row.device, row.digital) == (kind, (), 0, None, digital)


def test_the_text_is_a_table():
    model = nn.ModuleDict({"attention": nn.MultiheadAttention(4, 2), "gru": nn.GRU(4, 4)})
    lines = str(summary(convert(model, device=Ideal()))).splitlines()
    assert [line.split()[0] for line in lines] == [
        "layer", *(f"attention.{p}_proj" for p in ("q", "k", "v", "out")), "gru", "total",
    ]  # fmt: skip
    assert "2x 12x4" in lines[5]
    assert len({line.rindex("AnalogSGD") for line in lines[1:-1]}) == 1
    assert lines[-1].split() == ["total", "6", "160", str(4 * 4 + 2 * 12)]


def test_replicas_and_shared_parameters_count():
    assert summary(convert([nn.Linear(3, 2) for _ in range(3)], device=Ideal())).rows[0].crosspoints == 18
    model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3), nn.LayerNorm(3))
    model[2].weight = model[1].weight
    rows = summary(convert(model, device=Ideal())).rows
    assert [row.digital for row in rows] == [3, 6, 3]


def test_a_digital_model():
    (row,) = summary(nn.Linear(3, 2)).rows
    assert row.cells == ("(model)", "Linear", "-", "0", "0", "digital", "-", "8")
