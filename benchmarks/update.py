"""How much faster is our pulsed update than aihwkit's, on the same cores and with the same statistics?

Baseline: aihwkit 1.2.0, `tile.update(x, d)` with its default trains (bit length 31, update and bit-length management),
measured in the same run, in turns with `Crossbar.pulse(x, d, lr)`, when --peer-python names an interpreter that has it.
Goal: over the rows of at least 1e5 crosspoint-samples, a median ratio of 10 on 2 threads and 5 on 1, and no row slower
than the peer. Compare on a quiet machine only: under load the peer's threads slow it more than ours.

Last report: `results/update.json`, AMD EPYC (Zen 4, AVX-512), a virtual machine whose two processors together do 1.3
times the work of one (two plain loops side by side). Median ratio 5.6 on 1 thread and 7.0 on 2, of 224 rows each; by
input, on 1 thread: 21 for dw_min 1e-4, 11 with 80 % zeros; 4.4 for 1e-3, 1.6 with 80 % zeros. Slower than the peer:
10 of 288 rows on 1 thread and 15 on 2, all at dw_min 1e-3, with 80 % zeros or of 10x128 crosspoints; the lowest ratio
0.62. Other work ran beside the last 12 rows (4096x4096, 2 threads). The kernel has changed since: parameters lie by
columns too, few pulses go by the crosspoints they reach, threads keep apart, updates of less than a million
crosspoint-samples keep to one. A run cut short after its rows on 1 thread had a median of 5.9, and 3 of 288 rows slower
than the peer (10x128, batch 1, 80 % zeros; lowest 0.93); a whole report is to be made.

    python benchmarks/update.py --peer-python PATH --out benchmarks/results/update

The same as `ohmgrad bench update`; the measuring is in `ohmgrad.experiments.update_speed`, which says how it is done.
"""

import sys

from ohmgrad.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["bench", "update"]
    main()
