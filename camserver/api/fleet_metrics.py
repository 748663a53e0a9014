"""The metrics of a host in a fleet. A host on its own has none of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

GAUGES = {
    "members": "Hosts that are live.",
    "owned": "Devices that this host owns.",
    "validity_seconds": "How long this host may have sessions without another renewal.",
    "hold_seconds": "How long hosts may have sessions without the store during a hold; 0: no hold.",
    "store_up": "Whether the store can be used.",
    "store_latency_seconds": "How long the last change in the store took.",
}
COUNTERS = {
    "takeovers": "Devices that this host took over from hosts that are dead.",
    "fenced": "How often this host has lost its place in the fleet.",
    "lapsed": "How often this host ended every session, because no renewal got through.",
}


def fleet_metrics(values: Mapping[str, float]) -> Iterator[Metric]:
    """Yield the metrics. `values` has each name of GAUGES and COUNTERS."""
    for name, text in GAUGES.items():
        yield GaugeMetricFamily(f"camserver_fleet_{name}", text, values[name])
    for name, text in COUNTERS.items():
        yield CounterMetricFamily(f"camserver_fleet_{name}", text, values[name])
