"""Question: do our devices move as aihwkit's do?

For each family, preset and unit cell of aihwkit the distribution of weights over 10,000 devices after the same pulses,
ours against the peer's: n up pulses from 0, n down pulses from 0, n pairs of one up and one down pulse. Every
crosspoint gets every pulse (trains of one slot, lines that are sure to fire), so that only devices are compared.

Two laws agree where a two-sample Kolmogorov-Smirnov test does not reject at 1e-6, and where means and standard
deviations differ by at most 4.9 of their standard errors, beyond which a normal number lies with odds of 1e-6: some 300
comparisons together alarm falsely in one run of 3,000. n = 10,000 sees laws that are 3.7 % apart, means that differ by
7 % of a deviation, and deviations of normal laws that differ by 5 %.

Definitions in which the two differ, and what is done about them here:

* The peer takes the noise of pulses from a list of 32,768 numbers for each tile (its `rng.h`), whose mean is off 0 by
  0.0055 deviations: in a single tile all pulses of all devices have that in common, and presets of strong noise drift.
  So its devices are spread over 100 tiles.
* A vector cell that takes its devices in turn begins with the second one there, with `first` here: ours gets first=1.
* One that takes them at random makes one choice for a whole array, so that its devices have it in common. There the
  means of 400 arrays are compared, which see laws that are 19 % apart.
* aihwkit estimates the symmetric point of a power step by pulses, ours by bisection: equal where that has converged.
* One-sided pairs: the peer sorts the pulses of one train, ours are trains of each pair of signs: equal where all
  products have one sign, as here.

    python benchmarks/peer_agreement.py --peer-python PYTHON_WITH_AIHWKIT
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path

N = 10_000  # devices
TILES = 100  # of the peer
ALPHA, ERRORS = 1e-6, 4.9
RESULTS = Path(__file__).parent / "results" / "peer_agreement.json"


# ---- the peer's side, in an interpreter of its own that has aihwkit and not us


def serve(folder: Path) -> None:
    """Answer the cases in `cases.json` by weights in `NAME.npz`, and versions in `versions.json`."""
    np, torch, aihwkit = (import_module(name) for name in ("numpy", "torch", "aihwkit"))
    torch.set_num_threads(1)
    for case in json.loads((folder / "cases.json").read_text()):
        found = {}
        for sequence, signs in case["sequences"].items():
            tiles, side = [], case["side"]
            for k in range(case["tiles"]):
                tile = _peer_tile(case["peer"], side, case["seed"] + k)
                tile.set_learning_rate(case["lr"])
                tile.tile.set_weights(torch.zeros(side, side))
                for sign in signs:
                    tile.update(torch.ones(1, side), torch.full((1, side), -float(sign)))
                tiles.append(tile.tile.get_weights().numpy())
            found[sequence] = np.stack(tiles)
        np.savez(folder / f"{case['name']}.npz", **found)
    versions = {"aihwkit": aihwkit.__version__, "torch": torch.__version__, "python": sys.version.split()[0]}
    (folder / "versions.json").write_text(json.dumps(versions))


def _peer_tile(made, side, seed):
    configs, tiles = import_module("aihwkit.simulator.configs"), import_module("aihwkit.simulator.tiles")
    compounds = import_module("aihwkit.simulator.configs.compounds")
    devices, presets = (import_module(f"aihwkit.simulator.{m}") for m in ("configs.devices", "presets.devices"))

    def device(kind, fields):
        return getattr(devices, kind, None) or getattr(presets, kind), fields

    def build(kind, fields):
        make, fields = device(kind, fields)
        return make(construction_seed=seed, **fields)

    one_pulse = {"desired_bl": 1, "update_bl_management": False, "update_management": False}
    if "cell" not in made:
        config, update = configs.SingleRPUConfig(device=build(made["kind"], made["fields"])), one_pulse
    else:
        fields, update = dict(made["cell_fields"]), made.get("update", one_pulse)
        if "update_policy" in fields:
            fields["update_policy"] = configs.VectorUnitCellUpdatePolicy(fields["update_policy"])
        if "refresh_every" in fields:
            fields["refresh_forward"] = configs.IOParameters(is_perfect=True)
        members = [build(made["kind"], made["fields"]) for _ in range(made["members"])]
        cell = getattr(compounds, made["cell"])(unit_cell_devices=members, construction_seed=seed, **fields)
        config = configs.UnitCellRPUConfig(device=cell)
    config.update = configs.UpdateParameters(**update)
    return tiles.AnalogTile(side, side, config)


# ---- ours

NAMES = {  # ours: theirs
    "dw_min_ctoc": "dw_min_std", "dw_min_log_normal": "dw_min_dtod_log_normal", "write_noise": "write_noise_std",
    "corrupt": "corrupt_devices_prob", "corrupt_range": "corrupt_devices_range",
    "noise_add": "dw_min_std_add", "noise_slope": "dw_min_std_slope",
    "nodes_up": "piecewise_up", "nodes_down": "piecewise_down",
}  # fmt: skip
POWER = {
    "gamma": "pow_gamma", "gamma_up_down": "pow_up_down",
    "gamma_dtod": "pow_gamma_dtod", "gamma_up_down_dtod": "pow_up_down_dtod",
}  # fmt: skip
NOT_THEIRS = ("ctoc", "granularity_from")
SPREAD = {
    "w_min": -0.6, "w_max": 0.6, "dw_min": 0.005, "dw_min_dtod": 0.3, "dw_min_ctoc": 0.3, "up_down_dtod": 0.01,
    "w_max_dtod": 0.3, "w_min_dtod": 0.3,
}  # fmt: skip
PRESETS = {
    "reram_es": "ReRamES", "reram_sb": "ReRamSB", "capacitor": "Capacitor", "ecram": "EcRam", "ecram_mo": "EcRamMO",
    "idealized": "Idealized", "gokmen_vlasov": "GokmenVlasov", "pcm": "PCM",
    "reram_array_om": "ReRamArrayOM", "reram_array_hfo2": "ReRamArrayHfO2",
}  # fmt: skip


def translated(device) -> dict:
    """The peer's class and all of its fields that ours have a name for."""
    family = type(device).__name__
    names = NAMES | (POWER if family.startswith("PowStep") else {})
    fields = {names.get(k, k): v for k, v in vars(device).items() if k not in NOT_THEIRS}
    if family in ("LinearStep", "SoftBounds", "SoftBoundsReference"):
        fields["mult_noise"] = device.ctoc == "multiplicative"
    if family in ("ConstantStep", "PowStepReference"):
        del fields["write_noise_std"]
    if family == "PowStepReference":
        fields["n_estimation_steps"] = -1
    return {"kind": f"{family}Device", "fields": {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}}


def cases() -> list[dict]:
    """Every case: its name, our device or cell, what the peer makes, and how many pulses."""
    from ohmgrad.devices import (
        ConstantStep,
        ExpStep,
        LinearStep,
        OneSidedCell,
        PiecewiseStep,
        PowStep,
        PowStepReference,
        SoftBounds,
        SoftBoundsReference,
        VectorCell,
        presets,
        reference_cell,
    )

    slopes = {"gamma_up": 0.4, "gamma_down": 0.7, "gamma_up_dtod": 0.2, "gamma_down_dtod": 0.2}
    power = {"gamma": 1.5, "gamma_dtod": 0.1, "gamma_up_down": 0.2, "gamma_up_down_dtod": 0.1}
    taken = {"subtract_symmetry_point": True, "reference_mean": 0.02, "reference_std": 0.05}
    nodes = {"nodes_up": (2.0, 1.5, 1.0, 0.2), "nodes_down": (0.1, 1.0, 1.5, 0.8)}
    additive, relative = {"ctoc": "additive"}, {"ctoc": "multiplicative"}
    families = {
        "constant-step": ConstantStep(**SPREAD, up_down=0.2),
        "constant-step, log-normal": ConstantStep(**SPREAD, dw_min_log_normal=True),
        "constant-step, corrupt": ConstantStep(**SPREAD, corrupt=0.2, corrupt_range=0.1),
        "linear-step": LinearStep(**SPREAD, **slopes, write_noise=2.0),
        "linear-step, additive": LinearStep(**SPREAD, **slopes, **additive),
        "linear-step, own bounds": LinearStep(**SPREAD, **slopes, mean_bound_reference=False),
        "linear-step, increasing": LinearStep(**SPREAD, **slopes, allow_increasing=True),
        "linear-step, reversed": LinearStep(**SPREAD, **slopes, reverse_up=True, reverse_down=True),
        "soft-bounds": SoftBounds(**SPREAD, up_down=-0.2),
        "soft-bounds, additive": SoftBounds(**SPREAD, **additive),
        "soft-bounds-reference": SoftBoundsReference(**SPREAD, **taken, slope_up_dtod=0.1, slope_down_dtod=0.2),
        "soft-bounds-reference, multiplicative": SoftBoundsReference(**SPREAD, reference_mean=0.1, **relative),
        "soft-bounds-reference, corrupt": SoftBoundsReference(**SPREAD, **taken, corrupt=0.2, slope_up_dtod=0.1),
        "exp-step": ExpStep(**SPREAD),
        "exp-step, own noise": ExpStep(**SPREAD, noise_add=0.005, noise_slope=0.02, write_noise=2.0),
        "pow-step": PowStep(**SPREAD, **power, write_noise=2.0),
        "pow-step-reference": PowStepReference(**SPREAD, **power, **taken),
        "piecewise-step": PiecewiseStep(**SPREAD, **nodes, write_noise=2.0),
        "piecewise-step, one node": PiecewiseStep(**SPREAD, nodes_up=(1.2,), nodes_down=(0.8,)),
    }  # fmt: skip
    made = [{"name": name, "device": device, "peer": translated(device)} for name, device in families.items()]
    pmax = {"p_max": 300, "alpha": 0.004, "range_min": -0.5, "range_max": 0.6}
    noise = {k: v for k, v in SPREAD.items() if k not in ("w_min", "w_max", "dw_min")}
    their = {NAMES.get(k, k): v for k, v in noise.items()}
    made.append({
        "name": "soft-bounds-pmax", "device": presets.soft_bounds_pmax(**pmax, **noise),
        "peer": {"kind": "SoftBoundsPmaxDevice", "fields": pmax | their},
    })  # fmt: skip
    for ours, theirs in PRESETS.items():
        device = presets.PRESETS[ours]()
        made.append({
            "name": f"preset {ours}", "device": device, "peer": {"kind": f"{theirs}PresetDevice", "fields": {}},
        })  # fmt: skip
    member = SoftBounds(**SPREAD)
    gains = {"gains": (0.7, 0.2, -0.3)}
    for policy, theirs in (("all", "All"), ("fixed", "SingleFixed"), ("sequential", "SingleSequential"),
                           ("random", "SingleRandom")):  # fmt: skip
        fields = {"update_policy": theirs, "gamma_vec": list(gains["gains"])}
        cell = VectorCell(devices=(member,) * 3, policy=policy, first=int(policy == "sequential"), **gains)
        made.append({
            "name": f"vector cell, {policy}", "device": cell, "common": policy == "random",
            "peer": translated(member) | {"cell": "VectorUnitCell", "members": 3, "cell_fields": fields},
        })  # fmt: skip
    made.append({
        "name": "reference cell", "device": reference_cell(member),
        "peer": translated(member) | {"cell": "ReferenceUnitCell", "members": 2, "cell_fields": {}},
    })  # fmt: skip
    up = ExpStep(**{**SPREAD, "w_min": 0.0, "w_max": 1.0}, a=-1.0, b=0.0, gamma_up=2.5, gamma_down=2.5,
                 A_up=-2.0, A_down=-2.0, reset=0.05, reset_dtod=0.02)  # fmt: skip
    for name, device, fields in (
        ("one-sided cell", member, {}),
        ("one-sided cell, refresh", up, {"refresh_every": 1, "refresh_upper_thres": 0.3, "refresh_lower_thres": 0.1}),
        ("preset pcm_pair", presets.pcm(), {"refresh_every": 1}),
    ):
        ours = {k.replace("_thres", ""): v for k, v in fields.items()}
        made.append({
            "name": name, "device": OneSidedCell(device=device, **ours),
            "peer": translated(device) | {
                "cell": "OneSidedUnitCell", "members": 2, "cell_fields": fields, "update": {"desired_bl": 31},
            },
        })  # fmt: skip
    return made


def sequences(n: int) -> dict[str, list[int]]:
    """Directions of the pulses."""
    return {"up": [1] * n, "down": [-1] * n, "alternating": [1, -1] * n}


def ours(case: dict, seed: int) -> dict:
    """Weights after each sequence, by the same pulses."""
    import torch

    from ohmgrad import PulsedUpdate
    from ohmgrad.crossbar import make_crossbar

    managed = "update" in case["peer"]
    update = PulsedUpdate() if managed else PulsedUpdate(
        bit_length=1, update_management=False, bit_length_management=False
    )  # fmt: skip
    n_arrays = case["tiles"] if case.get("common") else 1
    side, found = case["side"] if case.get("common") else int(N**0.5), {}
    for sequence, signs in case["sequences"].items():
        arrays = []
        for k in range(n_arrays):
            bar = make_crossbar((side, side), device=case["device"], update=update, seed=1000 * seed + k)
            for sign in signs:
                bar.pulse(torch.ones(1, side), torch.full((1, side), -float(sign)), case["lr"])
            arrays.append(bar.weight)
        found[sequence] = torch.stack(arrays).numpy()
    return found


def compare(a, b) -> dict:
    """Of two samples, ours and the peer's: their means and deviations with errors, their distance."""
    import numpy as np
    from scipy import stats

    a, b = (np.asarray(v, np.float64).ravel() for v in (a, b))
    moments = []
    for v in (a, b):
        centred = v - v.mean()
        variance = np.mean(centred**2)
        moments.append((v.mean(), variance, variance / v.size, (np.mean(centred**4) - variance**2) / v.size))
    (mean_a, var_a, e2_a, v2_a), (mean_b, var_b, e2_b, v2_b) = moments
    tiny = 1e-30
    test = stats.ks_2samp(a, b, method="asymp")
    row = {
        "mean": [mean_a, mean_b], "std": [var_a**0.5, var_b**0.5],
        "mean_errors": (mean_a - mean_b) / (e2_a + e2_b + tiny) ** 0.5,
        "std_errors": (var_a - var_b) / (v2_a + v2_b + tiny) ** 0.5,
        "ks": float(test.statistic), "p": float(test.pvalue),
    }  # fmt: skip
    row["agrees"] = bool(row["p"] > ALPHA and abs(row["mean_errors"]) < ERRORS and abs(row["std_errors"]) < ERRORS)
    return row


def line(row: dict) -> str:
    """A row of the report as text: ours and the peer's, with the difference in errors."""
    (mean, their_mean), (std, their_std) = row["mean"], row["std"]
    return (
        f"{row['case']:40} {row['sequence']:12} {row['pulses']:4}"
        f"  mean {mean:+.5f} {their_mean:+.5f} ({row['mean_errors']:+.1f})"
        f"  std {std:.5f} {their_std:.5f} ({row['std_errors']:+.1f})"
        f"  ks {row['ks']:.4f} p {row['p']:.1g}" + ("" if row["agrees"] else "  DIFFERS")
    )


def main() -> int:
    """Print a table and write the report; 1 where a law differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", required=True, help="interpreter that has aihwkit")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="cases whose name holds this text")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    import numpy as np

    from ohmgrad import __version__

    chosen = [case for case in cases() if args.only in case["name"]]
    for i, case in enumerate(chosen):
        device = case["device"]
        states = getattr(device, "n_states", None) or device.devices[0].n_states
        is_common = case.get("common", False)
        n = int(min(max(0.4 * states, 3), 20 if is_common else 150))
        case |= {"tiles": 400 if is_common else TILES, "side": 5 if is_common else int((N / TILES) ** 0.5)}
        managed = "update" in case["peer"]
        # Of one slot any large step is sure to fire; with management a step of one granularity is one pulse.
        case |= {
            "sequences": sequences(n),
            "lr": device.granularity if managed else 1e3,
            "seed": 100_000 * args.seed + 1000 * i + 1,
        }
    rows = []
    with tempfile.TemporaryDirectory() as folder_name:
        folder = Path(folder_name)
        asked = [{k: v for k, v in case.items() if k != "device"} for case in chosen]
        (folder / "cases.json").write_text(json.dumps(asked))
        command = [args.peer_python, __file__, "--serve", folder_name]
        subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, cwd=folder_name)
        versions = json.loads((folder / "versions.json").read_text())
        for case in chosen:
            with np.load(folder / f"{case['name']}.npz") as theirs:
                for sequence, weights in ours(case, args.seed).items():
                    pair = [weights, theirs[sequence]]
                    if case.get("common"):
                        pair = [w.mean((-2, -1)) for w in pair]
                    row = {"case": case["name"], "sequence": sequence, "pulses": len(case["sequences"][sequence])}
                    row |= compare(*pair)
                    rows.append(row)
                    print(line(row), flush=True)
    different = sum(not row["agrees"] for row in rows)
    print(f"{len(rows)} laws compared, {different} differ")
    report = {
        "devices": N, "peer_tiles": TILES, "alpha": ALPHA, "errors": ERRORS, "seed": args.seed,
        "versions": {"ohmgrad": __version__, "peer": versions}, "differ": different, "rows": rows,
    }  # fmt: skip
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return int(different > 0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(Path(sys.argv[2]))
    else:
        sys.exit(main())
