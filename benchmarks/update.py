"""How much faster is our pulsed update than aihwkit's, on the same cores and with the same statistics?

Baseline: aihwkit 1.2.0, `tile.update(x, d)` with its default trains (bit length 31, update and bit-length management),
measured in the same run, in turns with `Crossbar.pulse(x, d, lr)`, when --peer-python names an interpreter that has it.
Goal: over the rows of at least 1e5 crosspoint-samples, a median ratio of 10 on 2 threads and 5 on 1, and no row slower
than the peer. Compare on a quiet machine only: under load the peer's threads slow it more than ours.

Last report: `results/update.json`, the four affine families, AMD EPYC (Zen 4, AVX-512), a virtual machine whose two
processors are siblings of one core. Median ratio 6.6 on 1 thread and 11.2 on 2, of 224 rows each; by input, on 1
thread: 24 for dw_min 1e-4, 13 with 80 % zeros; 4.7 for 1e-3, 2.0 with 80 % zeros. So the medians meet the goal. Slower
than the peer: 0 of 288 rows on 1 thread and 1 on 2, of 10x128 crosspoints, batch 1, with zeros at dw_min 1e-3, where a
call takes 6 us; the lowest ratio 0.87. Nothing else computed. Since then the loops of families have changed, for which
it was not repeated.

    python benchmarks/update.py --peer-python PATH --out benchmarks/results/update

`results/update_families.json`: every family, on 256x256 and 512x512 with batch 10, no zeros, on a quiet machine. Median
ratio of 4 rows each, on 1 thread and 2: constant step 13 and 15, linear step 14 and 17, soft bounds 13 and 19, against
a reference 16 and 23, exponential step 5.8 and 8.1, power step 5.9 and 8.1, against a reference 6.1 and 8.4, piecewise
step 6.5 and 9.1. So the four affine families meet the goal there, and the others on 1 thread, but not on 2. None of 64
rows is slower than the peer.

    python benchmarks/update.py --peer-python PATH --shapes 256x256,512x512 --batches 10 --sparsities 0 --out DIR

The same as `ohmgrad bench update`; the measuring is in `ohmgrad.experiments.update_speed`, which says how it is done.
"""

import sys

from ohmgrad.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["bench", "update"]
    main()
