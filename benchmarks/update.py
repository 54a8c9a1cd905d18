"""How much faster is our pulsed update than aihwkit's, on the same cores and with the same statistics?

Baseline: aihwkit 1.2.0, `tile.update(x, d)` with its default trains (bit length 31, update and bit-length management),
measured in the same run, in turns with `Crossbar.pulse(x, d, lr)`, when --peer-python names an interpreter that has it.
Goal: over the rows of at least 1e5 crosspoint-samples, a median ratio of 10 on 2 threads and 5 on 1, and no row slower
than the peer. Compare on a quiet machine only: under load the peer's threads slow it more than ours.

Last report: `results/update.json`, the four affine families, AMD EPYC (Zen 4, AVX-512), a virtual machine whose two
processors are siblings of one core. Median ratio 6.6 on 1 thread and 11.2 on 2, of 224 rows each; by input, on 1
thread: 24 for dw_min 1e-4, 13 with 80 % zeros; 4.7 for 1e-3, 2.0 with 80 % zeros. So the medians meet the goal. Slower
than the peer: 0 of 288 rows on 1 thread and 1 on 2, of 10x128 crosspoints, batch 1, with zeros at dw_min 1e-3, where a
call takes 6 us; the lowest ratio 0.87. Nothing else computed. Since then the loops of families and
the way in which threads share have changed, for which it was not repeated.

    python benchmarks/update.py --peer-python PATH --out benchmarks/results/update

`results/update_families.json`: every family, on 256x256 and 512x512 with batch 10, no zeros, on a quiet machine with
another processor, AMD EPYC (Zen 3, AVX2 alone), of which both sides are slower. Median ratio of 4 rows each, on 1
thread and 2: constant step 9.7 and 18, linear step 12 and 17, soft bounds 10 and 19, against a reference 14 and 23,
exponential step 4.9 and 9.3, power step 4.7 and 8.3, against a reference 4.8 and 7.8, piecewise step 5.2 and 9.1; of
all rows 5.2 and 8.8. So the four affine families meet the goal there; those that bend come close to it, and miss it,
as all rows together do on 2 threads. None of 64 rows is slower than the peer. On the processor of the report above,
before threads shared by the time that an update takes, those that bend had 5.8 to 6.5 on 1 thread and 8.1 to 9.1 on
2.

    python benchmarks/update.py --peer-python PATH --shapes 256x256,512x512 --batches 10 --sparsities 0 --out DIR

The same as `ohmgrad bench update`; the measuring is in `ohmgrad.experiments.update_speed`, which says how it is done.
"""

import sys

from ohmgrad.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["bench", "update"]
    main()
