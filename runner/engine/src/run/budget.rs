//! How many machines run at the same time.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Processors and memory that boot tests may use at one time.
#[derive(Debug, Clone)]
pub(super) struct Budget {
    cpus: Arc<Semaphore>,
    memory: Arc<Semaphore>,
    total: (u32, u32),
}

/// What a machine holds while it runs.
#[derive(Debug)]
pub(super) struct Room(#[expect(dead_code, reason = "held, not read")] [OwnedSemaphorePermit; 2]);

/// Share of the engine's memory that machines may use, in percent: something has to be left for its files' cache.
const MEMORY: u64 = 75;
/// What a stage is counted with: processors, and bytes that compressing a desktop's files takes.
const STAGE_CPUS: u32 = 2;
const STAGE_MEMORY: u64 = 2 << 30;
/// Bytes of a permit for memory.
const MIB: u64 = 1 << 20;

impl Budget {
    /// Of an engine with so many processors and so many bytes of memory.
    pub(super) fn new(cpus: i64, memory: i64) -> Self {
        let cpus = u32::try_from(cpus).unwrap_or(0).max(1);
        let memory = u64::try_from(memory).unwrap_or(0) * MEMORY / 100 / MIB;
        let memory = u32::try_from(memory).unwrap_or(u32::MAX >> 4).clamp(1, u32::MAX >> 4);
        let semaphore = |permits: u32| Arc::new(Semaphore::new(permits as usize));
        Self { cpus: semaphore(cpus), memory: semaphore(memory), total: (cpus, memory) }
    }

    /// How many stages may run at the same time. One that installs packages keeps a processor busy, one that compresses all
    /// of them.
    pub(super) fn stages(&self) -> usize {
        let (cpus, memory) = (self.total.0 / STAGE_CPUS, u64::from(self.total.1) * MIB / STAGE_MEMORY);
        cpus.min(u32::try_from(memory).unwrap_or(u32::MAX)).max(1) as usize
    }

    /// Waits for room for a machine, first come, first served. A machine that is larger than the engine gets all of it.
    pub(super) async fn take(&self, cpus: u32, memory: u64) -> Option<Room> {
        let memory = u32::try_from(memory / MIB).unwrap_or(u32::MAX);
        let cpus = self.cpus.clone().acquire_many_owned(cpus.clamp(1, self.total.0)).await.ok()?;
        let memory = self.memory.clone().acquire_many_owned(memory.clamp(1, self.total.1)).await.ok()?;
        Some(Room([cpus, memory]))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn stages_share_processors_and_memory() {
        for (cpus, gibibytes, stages) in [(1, 1, 1), (2, 64, 1), (4, 64, 2), (16, 8, 3), (16, 64, 8)] {
            assert_eq!(Budget::new(cpus, gibibytes << 30).stages(), stages, "{cpus} {gibibytes}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn machines_wait_for_processors_and_for_memory() {
        let budget = Budget::new(4, 16 << 30);
        let first = budget.take(2, 4 << 30).await.unwrap();
        let second = budget.take(2, 2 << 30).await.unwrap();
        let third = async { tokio::time::timeout(Duration::from_secs(1), budget.take(1, 1 << 30)).await };
        assert!(third.await.is_err(), "no processor is left");
        drop(second);
        let wide = async { tokio::time::timeout(Duration::from_secs(1), budget.take(1, 10 << 30)).await };
        assert!(wide.await.is_err(), "12 GiB may be used, 4 of them are");
        drop(first);
        assert!(budget.take(64, 64 << 30).await.is_some(), "the largest machine gets everything there is");
    }
}
