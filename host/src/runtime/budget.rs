//! Memory and tables of one instance: all of its memories together have one limit, whatever their number.

use wasmtime::ResourceLimiter;

use crate::config::Limits;

/// Core instances within one component instance.
pub const INSTANCES: u32 = 64;
/// Tables within one component instance.
pub const TABLES: u32 = 8;
/// Memories within one component instance.
pub const MEMORIES: u32 = 4;

/// What one instance may still take.
#[derive(Debug)]
pub struct Budget {
    memory: usize,
    table_elements: usize,
}

impl Budget {
    /// A whole budget.
    pub fn new(limits: &Limits) -> Self {
        Self {
            memory: usize::try_from(limits.memory_mib).unwrap_or(4096).saturating_mul(1 << 20),
            table_elements: usize::try_from(limits.table_elements).unwrap_or(usize::MAX),
        }
    }
}

impl ResourceLimiter for Budget {
    fn memory_growing(&mut self, current: usize, desired: usize, _most: Option<usize>) -> wasmtime::Result<bool> {
        match self.memory.checked_sub(desired.saturating_sub(current)) {
            Some(rest) => self.memory = rest,
            None => return Ok(false),
        }
        Ok(true)
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _most: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= self.table_elements)
    }

    fn instances(&self) -> usize {
        usize::try_from(INSTANCES).unwrap_or(usize::MAX)
    }

    fn tables(&self) -> usize {
        usize::try_from(TABLES).unwrap_or(usize::MAX)
    }

    fn memories(&self) -> usize {
        usize::try_from(MEMORIES).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn all_memories_of_an_instance_share_one_limit() {
        let mut budget = Budget::new(&Limits { memory_mib: 3, ..Limits::default() });
        assert!(budget.memory_growing(0, MIB, None).unwrap());
        assert!(budget.memory_growing(0, 2 * MIB, None).unwrap());
        assert!(!budget.memory_growing(MIB, MIB + 1, None).unwrap());
        assert!(!budget.memory_growing(0, 65_536, None).unwrap());
    }

    #[test]
    fn a_table_of_the_limit_passes_and_one_element_more_does_not() {
        let mut budget = Budget::new(&Limits { table_elements: 10, ..Limits::default() });
        assert!(budget.table_growing(0, 10, None).unwrap());
        assert!(!budget.table_growing(0, 11, None).unwrap());
    }
}
