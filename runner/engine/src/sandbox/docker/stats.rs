//! What a container uses, as the engine counts it: the same whether its host has cgroups v1, v2 or both.

use bollard::models::ContainerStatsResponse;
use bollard::query_parameters::StatsOptionsBuilder;
use futures_util::{Stream, StreamExt};
use isokiln_core::event::Usage;

use super::container::Container;

impl Container {
    /// A sample a second, for as long as it runs.
    pub(super) fn usage_stream(&self) -> impl Stream<Item = Usage> + use<> {
        let options = StatsOptionsBuilder::default().stream(true).build();
        self.engine.docker.stats(&self.id, Some(options)).filter_map(|sample| {
            // The stream ends with the container; errors on the way only mean fewer samples.
            std::future::ready(sample.ok().map(|sample| usage(&sample)))
        })
    }

    /// One sample, now.
    pub(super) async fn usage_now(&self) -> Option<Usage> {
        let options = StatsOptionsBuilder::default().stream(false).one_shot(true).build();
        let mut stream = std::pin::pin!(self.engine.docker.stats(&self.id, Some(options)));
        stream.next().await?.ok().map(|sample| usage(&sample))
    }
}

/// Adds a later sample of the same container.
pub(super) fn later(before: Usage, now: Usage) -> Usage {
    Usage { memory_peak: before.memory_peak.max(now.memory_peak), ..now }
}

fn usage(sample: &ContainerStatsResponse) -> Usage {
    let cpu = sample.cpu_stats.as_ref().and_then(|cpu| cpu.cpu_usage.as_ref()?.total_usage).unwrap_or(0);
    let memory = sample.memory_stats.as_ref().map_or(0, |memory| {
        // File cache that can be given back is not use; v1 and v2 call it by different names.
        let cache = memory.stats.as_ref().and_then(|stats| {
            stats.get("total_inactive_file").or_else(|| stats.get("inactive_file")).copied()
        });
        memory.usage.unwrap_or(0).saturating_sub(cache.unwrap_or(0))
    });
    let transferred = |operation: &str| {
        let entries = sample.blkio_stats.as_ref().and_then(|io| io.io_service_bytes_recursive.as_ref());
        entries
            .into_iter()
            .flatten()
            .filter(|entry| entry.op.as_deref().is_some_and(|op| op.eq_ignore_ascii_case(operation)))
            .filter_map(|entry| entry.value)
            .sum()
    };
    let received = sample
        .networks
        .as_ref()
        .map_or(0, |networks| networks.values().filter_map(|network| network.rx_bytes).sum());
    Usage {
        cpu_seconds: cpu as f64 / 1e9,
        memory_peak: memory,
        disk_read: transferred("read"),
        disk_written: transferred("write"),
        network_received: received,
    }
}
