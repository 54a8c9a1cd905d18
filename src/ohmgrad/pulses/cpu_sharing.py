"""Whether threads share the next of a crossbar's updates: as seen from the ones before."""

from __future__ import annotations

import torch

# Seconds of work below which help costs more than it brings: of threads that sleep, and of those that the update
# before, less than RECENT seconds ago, has left awake. Above LARGE it always brings more.
SMALL, TINY, RECENT, LARGE = 3e-4, 1.2e-4, 3e-3, 5e-3
# Updates after which the other way is tried again, and after trials in vain.
SOON, LATE = 16, 1024
LEARN = 0.25  # weight of the last update in the mean of time

_last = [0.0]  # when an update began, of any crossbar


class Sharing:
    """Time that updates of a crossbar take alone and shared, and which of both is the shorter of late.

    A small update may gain half its time by a second thread, or lose several times that where other work holds it up:
    what holds here and now is measured, by trying the other way now and then.
    """

    def __init__(self, pace: float) -> None:
        """pace: seconds for a crosspoint and sample on one thread, before a first call has shown them."""
        self.pace = [pace, 0.0]  # alone, and shared: better until tried
        self.is_known = [False, False]
        self.wait, self.since, self.is_trial = SOON, 0, False

    def is_wanted(self, size: int, start: float) -> bool:
        """Whether to share an update of so many crosspoint-samples that begins at a time in seconds."""
        alone, self.is_trial = size * self.pace[0], False
        is_recent, _last[0] = start - _last[0] < RECENT, start
        if torch.get_num_threads() == 1 or alone <= TINY or (alone <= SMALL and not is_recent):
            return False
        if alone > LARGE:
            return True
        self.since += 1
        self.is_trial = self.since > self.wait
        return (self.pace[1] < self.pace[0]) != self.is_trial

    def took(self, is_shared: bool, size: int, seconds: float) -> None:
        """Note what an update took."""
        pace, before = seconds / size, self.pace[is_shared]
        if is_shared:  # alone it takes at most so many times as long, whatever an update that was held up has shown
            self.pace[0] = min(self.pace[0], torch.get_num_threads() * pace)
        if not self.is_trial:
            self.pace[is_shared] = before + LEARN * (pace - before) if self.is_known[is_shared] else pace
            self.is_known[is_shared] = True
        elif self.since > self.wait + 1:  # the first of a trial woke the threads
            self.pace[is_shared] = pace
            is_worse = self.pace[is_shared] >= self.pace[not is_shared]
            self.wait, self.since = min(2 * self.wait, LATE) if is_worse else SOON, 0
