"""Which family describes devices that others have measured, and by how much does it miss ramps it has not seen?

Run from the repository's root, DIR with crosssim_set.csv and crosssim_reset.csv (CrossSim v2.0,
examples/lookup_table_generation, BSD-3-Clause) and gong_et_al.csv (aihwkit, examples/csv, MIT):

    python benchmarks/device_fit.py DIR

writes benchmarks/results/device_fit.json. Baseline: the look-up table, which may take any shape. Held out are whole
ramps (CrossSim's 79) or pieces of 100 pulses (the two of Gong et al.); error: root mean square of reading less fitted
ramp, in per cent of the range of the readings. Last figures: see the file; the README quotes them.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from ohmgrad.devices import DEVICES
from ohmgrad.fitting import characterise, read
from ohmgrad.report.device_fit import results
from ohmgrad.report.files import write_json

SETS = {
    "crosssim": (("crosssim_set.csv", "crosssim_reset.csv"), 0.1),  # read at 0.1 V
    "gong_et_al": (("gong_et_al.csv",), None),
}
NODES = 8
OUT = Path(__file__).parent / "results" / "device_fit.json"


def main() -> None:
    """Fit every set, and write all figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir", type=Path)
    folder = parser.parse_args().dir
    families = [family() for family in DEVICES]
    families = [dataclasses.replace(f, **{name: (1.0,) * NODES for name in type(f).tables}) for f in families]
    found = {}
    for name, (files, volt) in SETS.items():
        measurement = read([folder / file for file in files], read_voltage=volt)
        found[name] = {
            "files": files,
            "read_voltage": volt,
            "nodes": NODES,
            **results(characterise(measurement, families)),
        }
        for row in found[name]["families"]:
            print(f"{name} {row['family']:24} {row['score']:.4f} {row['held_out_error_percent_of_range']:.2f} %")
    write_json(OUT, {"command": "python benchmarks/device_fit.py DIR", "sets": found})


if __name__ == "__main__":
    main()
