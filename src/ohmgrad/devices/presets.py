"""Devices from the literature, each number with its source.

Measured devices are as aihwkit 1.2 has fitted them, `simulator/presets/devices.py`, and each names the measurement.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from ohmgrad.devices.base import Device
from ohmgrad.devices.cells import Cell, OneSidedCell, VectorCell
from ohmgrad.devices.constant_step import ConstantStep
from ohmgrad.devices.exp_step import ExpStep
from ohmgrad.devices.linear_step import LinearStep
from ohmgrad.devices.log_domain import LogDomain
from ohmgrad.devices.soft_bounds import SoftBounds
from ohmgrad.devices.soft_bounds_pmax import soft_bounds_pmax
from ohmgrad.devices.soft_bounds_reference import SoftBoundsReference


def asymmetric_linear(tau: float = 1.0, dw_min: float = 1e-3) -> SoftBounds:
    """The asymmetric linear device: F = 1, G = w / tau (Wu et al. 2024, arXiv 2406.12774, sec. 2.2)."""
    return SoftBounds(w_min=-tau, w_max=tau, dw_min=dw_min)


def aihwkit_soft_bounds(tau: float = 0.6, dw_min: float = 1e-3) -> SoftBounds:
    """aihwkit's `SoftBoundsDevice` with its defaults: 30 % spread of steps and bounds, 30 % noise of each pulse.

    Source: aihwkit 1.1, `simulator/configs/devices.py`: dw_min .001, dw_min_dtod .3, dw_min_std .3,
    up_down_dtod .01, w_max .6, w_min -.6, w_max_dtod .3, w_min_dtod .3; noise multiplicative.
    """
    return SoftBounds(
        w_min=-tau,
        w_max=tau,
        dw_min=dw_min,
        dw_min_dtod=0.3,
        dw_min_ctoc=0.3,
        up_down_dtod=0.01,
        w_max_dtod=0.3,
        w_min_dtod=0.3,
    )


def saturating_exponential(tau: float = 1.0, gamma: float = 2.0, dw_min: float = 1e-3) -> ExpStep:
    """q = 1 - exp(-gamma (tau -+ w) / (2 tau)) (Wu et al. 2024, arXiv 2406.12774, app. C.3), as an exponential step."""
    A = math.exp(-gamma / 2.0)
    return ExpStep(w_min=-tau, w_max=tau, dw_min=dw_min, A_up=A, A_down=A, gamma_up=gamma, gamma_down=gamma, a=0.5, b=0)


def multi_level(n_states: float = 4.0, tau: float = 1.0) -> SoftBounds:
    """An element with few states: soft bounds of range 2 tau and steps of 2 tau / n_states.

    Source: Li et al. 2025 (arXiv 2510.02516), who train on 4, 10 and 16 states.
    """
    if not n_states > 0:
        raise ValueError(f"multi-level needs n_states > 0, got {n_states}")
    return SoftBounds(w_min=-tau, w_max=tau, dw_min=2.0 * tau / n_states)


def log_domain_cell(
    eps: float = 1e-3, mismatch: float = 0.15, tau: float = math.inf, exponent: float = 1.0
) -> LogDomain:
    """The subthreshold element by its circuit: a pulse changes the current by the share eps.

    Args:
        mismatch: standard deviation of ln(step) between devices, s kappa / U_T for a spread s of thresholds; 5 mV
            make about 0.15.
        tau: time constant of the leak in mini-batches: w decays by exp(-1 / tau) in each.
        exponent: 1 without the translinear division, 0 with it.

    Source: Tageldeen et al. 2025 (arXiv 2501.13181); equations derived.
    """
    if not tau > 0:
        raise ValueError(f"log-domain-cell needs tau > 0, got {tau}")
    lifetime = 0.0 if math.isinf(tau) else -1.0 / math.expm1(-1.0 / tau)
    return LogDomain(dw_min=eps, dw_min_dtod=mismatch, lifetime=lifetime, exponent=exponent)


def reram_es() -> ExpStep:
    """ReRAM as an exponential step. Fit to Gong et al., Nat. Commun. 2018 (aihwkit `ReRamESPresetDevice`).

    dw_min .00135 (dtod .2, noise of a pulse 5.0), up_down .259359 (.05), bounds -1, 1 (.3, .3), a = b = -.5,
    gammas 5, A_up -1.18445, A_down -.081404, write noise 75 dw_min.
    """
    return ExpStep(
        dw_min=0.00135, dw_min_dtod=0.2, dw_min_ctoc=5.0, up_down=0.259359, up_down_dtod=0.05,
        w_max_dtod=0.3, w_min_dtod=0.3, write_noise=75.0,
        a=-0.5, b=-0.5, gamma_up=5.0, gamma_down=5.0, A_up=-1.18445, A_down=-0.081404,
    )  # fmt: skip


def reram_sb() -> SoftBoundsReference:
    """ReRAM as soft bounds, its symmetric point taken off. Loose fit to Gong et al., Nat. Commun. 2018.

    aihwkit `ReRamSBPresetDevice`: dw_min .002 (dtod .3, noise of a pulse 3.75, additive), up_down 0 (.01),
    bounds -.75 (.3/.75), 1.25 (.3/1.25), write noise 56 dw_min.
    """
    return SoftBoundsReference(
        dw_min=0.002, dw_min_dtod=0.3, dw_min_ctoc=3.75, up_down_dtod=0.01,
        w_min=-0.75, w_max=1.25, w_min_dtod=0.3 / 0.75, w_max_dtod=0.3 / 1.25, write_noise=56.0,
    )  # fmt: skip


def capacitor() -> LinearStep:
    """A capacitor that leaks. Fit to Li et al., VLSI 2018 (aihwkit `CapacitorPresetDevice`).

    dw_min .005 (dtod .1, noise of a pulse .3, additive), up_down 0 (.06), bounds -1, 1 (.07), gammas .05 (.01),
    lifetime 1e6 mini-batches (.3).
    """
    return LinearStep(
        dw_min=0.005, dw_min_dtod=0.1, dw_min_ctoc=0.3, ctoc="additive", up_down_dtod=0.06,
        w_max_dtod=0.07, w_min_dtod=0.07, gamma_up=0.05, gamma_down=0.05, gamma_up_dtod=0.01, gamma_down_dtod=0.01,
        lifetime=1e6, lifetime_dtod=0.3,
    )  # fmt: skip


def ecram() -> LinearStep:
    """Lithium ECRAM, its range shifted to put the symmetric point at 0. Fit to Tang et al., IEDM 2018.

    aihwkit `EcRamPresetDevice`: dw_min .002 (dtod .1, noise of a pulse .3, multiplicative), up_down 0 (.01),
    bounds -.8276, 1.1724 (.05), gamma_up .1153, gamma_down .5085 (.05).
    """
    return LinearStep(
        dw_min=0.002, dw_min_dtod=0.1, dw_min_ctoc=0.3, up_down_dtod=0.01,
        w_min=-0.8276, w_max=1.1724, w_max_dtod=0.05, w_min_dtod=0.05,
        gamma_up=0.1153, gamma_down=0.5085, gamma_up_dtod=0.05, gamma_down_dtod=0.05,
    )  # fmt: skip


def ecram_mo() -> LinearStep:
    """Metal-oxide ECRAM, of data in Kim et al., IEDM 2019 (aihwkit `EcRamMOPresetDevice`).

    dw_min 2.8214e-4 (dtod .1, noise of a pulse 2.0, multiplicative), up_down 0 (.01), bounds -.8286, 1.1714 (.05),
    gamma_up .4152, gamma_down .7342 (.05).
    """
    return LinearStep(
        dw_min=2.8214e-4, dw_min_dtod=0.1, dw_min_ctoc=2.0, up_down_dtod=0.01,
        w_min=-0.8286, w_max=1.1714, w_max_dtod=0.05, w_min_dtod=0.05,
        gamma_up=0.4152, gamma_down=0.7342, gamma_up_dtod=0.05, gamma_down_dtod=0.05,
    )  # fmt: skip


def idealized() -> ConstantStep:
    """10,000 states, symmetric. Gokmen and Vlasov, Front. Neurosci. 2016, as Rasch et al. 2019 (arXiv 1906.02698).

    aihwkit `IdealizedPresetDevice`: dw_min .0002 (dtod .3, noise of a pulse .3), up_down 0 (0), bounds -1, 1 (.3).
    """
    return ConstantStep(dw_min=0.0002, dw_min_dtod=0.3, dw_min_ctoc=0.3, w_max_dtod=0.3, w_min_dtod=0.3)


def gokmen_vlasov() -> ConstantStep:
    """1200 states, as Gokmen and Vlasov, Front. Neurosci. 2016, ask of a device (aihwkit `GokmenVlasovPresetDevice`).

    dw_min .0016 (dtod .3, noise of a pulse .3), up_down 0 (.01), bounds -1, 1 (.3).
    """
    return ConstantStep(
        dw_min=0.0016, dw_min_dtod=0.3, dw_min_ctoc=0.3, up_down_dtod=0.01, w_max_dtod=0.3, w_min_dtod=0.3
    )


def pcm() -> ExpStep:
    """Phase-change memory, which only goes up: for `pcm_pair`. Nandakumar et al., Front. Neurosci. 2020.

    aihwkit `PCMPresetDevice`: dw_min .01 (dtod .2), noise of a pulse .6 (|dw| + .042 + .108 |w|), up_down 0 (.05),
    bounds 0 (0), 2 (.1), a = -1, b = 0, gammas 2.5, A_up -27.235, A_down -2.235, reset .01 (.02).
    """
    return ExpStep(
        dw_min=0.01, dw_min_dtod=0.2, dw_min_ctoc=0.6, noise_add=0.042, noise_slope=0.108, up_down_dtod=0.05,
        w_min=0.0, w_max=2.0, w_max_dtod=0.1, a=-1.0, b=0.0, gamma_up=2.5, gamma_down=2.5,
        A_up=-27.235, A_down=-2.235, reset=0.01, reset_dtod=0.02,
    )  # fmt: skip


def reram_array_om(corrupt: float = 0.0) -> SoftBoundsReference:
    """An array of ReRAM of optimised material. Gong, Rasch et al., IEDM 2022 (aihwkit `ReRamArrayOMPresetDevice`).

    dw_min .0949 (log-normal, dtod .7829; noise of a pulse .4158, additive), up_down 0 (.01), bounds -1 (.5695),
    1 (.3499), write noise 1.4113 dw_min, symmetric point taken off with an error of .05.

    Args:
        corrupt: share of stuck devices, within +-.01; .1348 in the measured array.
    """
    return SoftBoundsReference(
        dw_min=0.0949, dw_min_dtod=0.7829, dw_min_log_normal=True, dw_min_ctoc=0.4158, up_down_dtod=0.01,
        w_max_dtod=0.3499, w_min_dtod=0.5695, write_noise=1.4113, subtract_symmetry_point=True, reference_std=0.05,
        corrupt=corrupt, corrupt_range=0.01,
    )  # fmt: skip


def reram_array_hfo2(corrupt: float = 0.0) -> SoftBoundsReference:
    """An array of baseline HfO2 ReRAM. Gong, Rasch et al., IEDM 2022 (aihwkit `ReRamArrayHfO2PresetDevice`).

    dw_min .4622 (log-normal, dtod .7125; noise of a pulse .2174, additive), up_down 0 (.01), bounds -1 (.5990),
    1 (.4295), write noise .5841 dw_min, symmetric point taken off with an error of .05.

    Args:
        corrupt: share of stuck devices, within +-.01; .0977 in the measured array.
    """
    return SoftBoundsReference(
        dw_min=0.4622, dw_min_dtod=0.7125, dw_min_log_normal=True, dw_min_ctoc=0.2174, up_down_dtod=0.01,
        w_max_dtod=0.4295, w_min_dtod=0.5990, write_noise=0.5841, subtract_symmetry_point=True, reference_std=0.05,
        corrupt=corrupt, corrupt_range=0.01,
    )  # fmt: skip


def pcm_pair() -> OneSidedCell:
    """Two `pcm`, one for each sign, refreshed at every mini-batch (aihwkit `PCMPresetUnitCell`)."""
    return OneSidedCell(device=pcm(), refresh_every=1)


def several(device: Device, n: int) -> VectorCell:
    """n devices of which a random one takes each mini-batch, as aihwkit's presets named 2 and 4 have it."""
    return VectorCell(devices=(device,) * n, policy="random")


MEASURED = (
    reram_es,
    reram_sb,
    capacitor,
    ecram,
    ecram_mo,
    idealized,
    gokmen_vlasov,
    pcm,
    reram_array_om,
    reram_array_hfo2,
)
OTHERS = (
    asymmetric_linear,
    aihwkit_soft_bounds,
    soft_bounds_pmax,
    saturating_exponential,
    multi_level,
    log_domain_cell,
)
PRESETS: dict[str, Callable[..., Device]] = {f.__name__: f for f in (*OTHERS, *MEASURED)}
CELLS: Mapping[str, Callable[[], Cell]] = {"pcm_pair": pcm_pair} | {
    f"{f.__name__}_{n}": lambda f=f, n=n: several(f(), n) for f in MEASURED if f is not pcm for n in (2, 4)
}
