"""How much faster is our pulsed update than aihwkit's, on the same cores and with the same statistics?

Baseline: aihwkit 1.2.0, `tile.update(x, d)` with its default trains (bit length 31, update and bit-length management),
measured in the same run, in turns with `Crossbar.pulse(x, d, lr)`, when --peer-python names an interpreter that has it.
Goal: over the rows of at least 1e5 crosspoint-samples, a median ratio of 10 on 2 threads and 5 on 1, and no row slower
than the peer. Compare on a quiet machine only: under load the peer's threads slow it more than ours.

    python benchmarks/update.py --peer-python PATH --out benchmarks/results/update

The same as `ohmgrad bench update`; the measuring is in `ohmgrad.experiments.update_speed`, which says how it is done.
"""

import sys

from ohmgrad.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["bench", "update"]
    main()
