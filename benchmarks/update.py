"""How much faster is our pulsed update than aihwkit's, on the same cores and with the same statistics?

Baseline: aihwkit 1.2.0, `tile.update(x, d)` with its default trains (bit length 31, update and bit-length management),
measured in the same run, in turns with `Crossbar.pulse(x, d, lr)`, when --peer-python names an interpreter that has it.
Goal: over the rows of at least 1e5 crosspoint-samples, a median ratio of 10 on 2 threads and 5 on 1, and no row slower
than the peer. Compare on a quiet machine only: under load the peer's threads slow it more than ours.

Last report: `results/update.json`, one run over the four affine families, Intel Xeon (family 6, model 207: Emerald
Rapids, AVX-512), a virtual machine of two processors. Median ratio 8.6 on 1 thread and 15.6 on 2, of 224 rows each; by
input, on 1 thread: 35 for dw_min 1e-4, 17 with 80 % zeros; 7.0 for 1e-3, 2.5 with 80 % zeros. So the medians meet the
goal. Slower than the peer: 0 of 288 rows on 1 thread and 0 on 2; the lowest ratio 1.16. Nothing else computed.

On AMD EPYC (Zen 3, AVX2 without AVX-512), with code before the last changes to small updates and in two runs put
together, the medians were 6.8 and 11.2, the lowest ratio 1.08.

    python benchmarks/update.py --peer-python PATH --out benchmarks/results/update

`results/update_families.json`: every family, on 256x256 and 512x512 with batch 10, no zeros, on that EPYC and with that
code. Median ratio of 4 rows each, on 1 thread and 2: constant step 13 and 12, linear step 14 and 18, soft bounds 15 and
18, against a reference 16 and 29, exponential step 6.3 and 11, power step 6.1 and 11, against a reference 5.9 and 11,
piecewise step 7.2 and 12; of all rows 6.5 and 11.5. None of 64 rows is slower than the peer.

    python benchmarks/update.py --peer-python PATH --shapes 256x256,512x512 --batches 10 --sparsities 0 --out DIR

The same as `ohmgrad bench update`; the measuring is in `ohmgrad.experiments.update_speed`, which says how it is done.
"""

import sys

from ohmgrad.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["bench", "update"]
    main()
