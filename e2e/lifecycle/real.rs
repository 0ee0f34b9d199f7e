//! What only a real cluster can show: kube-proxy, nodes, API servers that restart, the chart.

mod availability;
mod chart;
mod conditions;
mod cycles;
mod memory;
mod node;
mod services;
mod stages;
mod tcp;
mod upgrade;

use crate::Case;

pub fn cases() -> Vec<Case> {
    [
        services::cases(),
        availability::cases(),
        conditions::cases(),
        memory::cases(),
        stages::cases(),
        tcp::cases(),
        cycles::cases(),
        // The last of them takes Dormouse away.
        chart::cases(),
        upgrade::cases(),
    ]
    .into_iter()
    .flatten()
    .map(|case| Case { real: true, ..case })
    .collect()
}
