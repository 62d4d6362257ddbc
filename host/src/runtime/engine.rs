//! Engine settings: one P2 profile, the same for the compile process that makes code and the runtime that loads it.
//!
//! Concurrency support, GC, function references and exceptions are off: P2 components need none of them, and most recent
//! advisories sit there. Epochs are always on, fuel never. The pool keeps slots warm; clearing them by `PAGEMAP_SCAN` is
//! allowed only where nothing can be swapped out (a dirty page in swap would be missed and shown to the next instance).

use std::fmt::Write;
use std::hash::{Hash, Hasher};

use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig};

use super::budget::{INSTANCES, MEMORIES, TABLES};
use crate::config::Limits;

const MIB: usize = 1 << 20;
const KEEP_MEMORY: usize = MIB + MIB / 4;
const KEEP_TABLE: usize = 64 << 10;
const KEEP_STACK: usize = 64 << 10;
/// Stack of guest code; the async stack is larger by what host calls need.
const WASM_STACK: usize = 512 << 10;
const ASYNC_STACK: usize = MIB + MIB / 2;

/// How the pool clears slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolProfile {
    /// Memory is reset in place; needs a kernel with `PAGEMAP_SCAN` and no swap.
    ResetInPlace,
    /// Memory is given back in batches. Safe with swap.
    SwapSafe,
}

impl PoolProfile {
    /// The name shown in `status`.
    pub fn name(self) -> &'static str {
        match self {
            PoolProfile::ResetInPlace => "reset-in-place",
            PoolProfile::SwapSafe => "swap-safe",
        }
    }

    /// Chooses by what the kernel says of swap; what cannot be read counts as swap.
    pub fn choose(proc_swaps: Option<&str>, cgroup_swap_max: Option<&str>) -> Self {
        let no_swap = proc_swaps.is_some_and(|text| text.lines().skip(1).all(|line| line.trim().is_empty()));
        let none_for_us = cgroup_swap_max.is_some_and(|text| text.trim() == "0");
        if no_swap || none_for_us { PoolProfile::ResetInPlace } else { PoolProfile::SwapSafe }
    }

    /// Chooses for this machine.
    pub fn of_this_machine() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).ok();
        Self::choose(read("/proc/swaps").as_deref(), read("/sys/fs/cgroup/memory.swap.max").as_deref())
    }
}

/// The engine of the compile process and of the supervisor's cache lookups: makes code, runs none.
pub fn compiler() -> wasmtime::Result<Engine> {
    Engine::new(&profile())
}

/// The engine that serves requests.
pub fn serving(limits: &Limits, pool: PoolProfile) -> wasmtime::Result<Engine> {
    let mut config = profile();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pooling(limits, pool)));
    Engine::new(&config)
}

/// Names everything that native code depends on: wasmtime's version, engine settings, processor features.
pub fn fingerprint(engine: &Engine) -> String {
    struct Blake(blake3::Hasher);
    impl Hasher for Blake {
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
        fn finish(&self) -> u64 {
            0
        }
    }
    let mut hasher = Blake(blake3::Hasher::new());
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hasher.0.finalize().as_bytes().iter().take(16).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn profile() -> Config {
    let mut config = Config::new();
    config
        .concurrency_support(false)
        .wasm_gc(false)
        .wasm_function_references(false)
        .wasm_exceptions(false)
        .wasm_threads(false)
        .wasm_memory64(false)
        .epoch_interruption(true)
        .consume_fuel(false)
        .cranelift_opt_level(OptLevel::Speed)
        .wasm_backtrace_max_frames(None)
        .max_wasm_stack(WASM_STACK)
        .async_stack_size(ASYNC_STACK)
        .async_stack_zeroing(true)
        .memory_init_cow(true);
    config
}

fn pooling(limits: &Limits, profile: PoolProfile) -> PoolingAllocationConfig {
    let requests = limits.concurrent_requests;
    let memory = usize::try_from(limits.memory_mib).unwrap_or(4096) * MIB;
    let tables = usize::try_from(limits.table_elements).unwrap_or(20_000);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(requests)
        // As many as all places together may use: what one component takes is never missing for another.
        .total_core_instances(requests.saturating_mul(INSTANCES))
        .total_memories(requests.saturating_mul(MEMORIES))
        .total_tables(requests.saturating_mul(TABLES))
        .total_stacks(requests)
        .max_core_instances_per_component(INSTANCES)
        .max_memories_per_component(MEMORIES)
        .max_tables_per_component(TABLES)
        .max_memory_size(memory.max(MIB))
        .table_elements(tables)
        .max_unused_warm_slots(requests.saturating_mul(2))
        .table_keep_resident(KEEP_TABLE)
        .async_stack_keep_resident(KEEP_STACK);
    match profile {
        PoolProfile::ResetInPlace => {
            pool.linear_memory_keep_resident(KEEP_MEMORY).pagemap_scan(Enabled::Auto);
        }
        PoolProfile::SwapSafe => {
            pool.linear_memory_keep_resident(0).pagemap_scan(Enabled::No).decommit_batch_size(32);
        }
    }
    pool
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_of_the_compiler_fits_the_serving_engine() {
        let compiler = compiler().unwrap();
        for pool in [PoolProfile::ResetInPlace, PoolProfile::SwapSafe] {
            let serving = serving(&Limits::default(), pool).unwrap();
            assert_eq!(fingerprint(&compiler), fingerprint(&serving));
        }
    }

    #[test]
    fn any_doubt_about_swap_gives_the_swap_safe_profile() {
        const NONE: &str = "Filename\tType\tSize\n";
        const SOME: &str = "Filename\tType\tSize\n/swap\tfile\t1024\n";
        assert_eq!(PoolProfile::choose(Some(NONE), None), PoolProfile::ResetInPlace);
        assert_eq!(PoolProfile::choose(Some(SOME), Some("0\n")), PoolProfile::ResetInPlace);
        for doubt in [(None, None), (Some(SOME), None), (Some(SOME), Some("max")), (None, Some("1"))] {
            assert_eq!(PoolProfile::choose(doubt.0, doubt.1), PoolProfile::SwapSafe);
        }
    }

    #[test]
    fn the_fingerprint_is_stable_and_not_empty() {
        let one = fingerprint(&compiler().unwrap());
        assert_eq!(one, fingerprint(&compiler().unwrap()));
        assert_eq!(one.len(), 32);
    }
}
