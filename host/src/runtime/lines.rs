//! The last lines that guests wrote, for whoever asks the host for them: a bounded ring for each instance.
//!
//! Lines come escaped and cut. They stay for a while after their instance was unloaded; the oldest rings make room for new ones.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;

use crate::limits::{LOG_RING_INSTANCES, LOG_RING_LINES};
use crate::rpc::runtime::Line;

/// All rings.
#[derive(Debug, Default)]
pub struct Lines(Mutex<Rings>);

#[derive(Debug, Default)]
struct Rings {
    lines: HashMap<String, VecDeque<Line>>,
    /// Instances, the one that wrote first at the front.
    order: VecDeque<String>,
}

impl Lines {
    /// Keeps a line.
    pub fn keep(&self, line: Line) {
        let Ok(mut rings) = self.0.lock() else { return };
        if !rings.lines.contains_key(&line.instance) {
            if rings.order.len() >= LOG_RING_INSTANCES
                && let Some(oldest) = rings.order.pop_front()
            {
                rings.lines.remove(&oldest);
            }
            rings.order.push_back(line.instance.clone());
        }
        let ring = rings.lines.entry(line.instance.clone()).or_default();
        if ring.len() >= LOG_RING_LINES {
            ring.pop_front();
        }
        ring.push_back(line);
    }

    /// Those of a component or an instance, or all; oldest first.
    pub fn of(&self, target: &str) -> Vec<Line> {
        let Ok(rings) = self.0.lock() else { return Vec::new() };
        let wanted = |line: &&Line| target.is_empty() || line.instance == target || line.component == target;
        let mut lines: Vec<Line> = rings.lines.values().flatten().filter(wanted).cloned().collect();
        lines.sort_by_key(|line| line.at_ms);
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(instance: &str, n: usize) -> Line {
        let (component, stream) = ("shop:cart".to_owned(), "stdout".to_owned());
        Line { at_ms: n as i64, component, instance: instance.to_owned(), stream, text: n.to_string() }
    }

    #[test]
    fn a_ring_keeps_the_newest_lines() {
        let lines = Lines::default();
        (0..LOG_RING_LINES + 3).for_each(|n| lines.keep(line("a", n)));
        let kept = lines.of("a");
        assert_eq!((kept.len(), kept[0].text.as_str()), (LOG_RING_LINES, "3"));
        assert_eq!(lines.of("shop:cart").len(), LOG_RING_LINES);
        assert!(lines.of("b").is_empty() && lines.of("").len() == LOG_RING_LINES);
    }

    #[test]
    fn the_oldest_instance_makes_room() {
        let lines = Lines::default();
        (0..=LOG_RING_INSTANCES).for_each(|n| lines.keep(line(&format!("i{n}"), n)));
        assert!(lines.of("i0").is_empty() && !lines.of("i1").is_empty());
        assert_eq!(lines.of("").len(), LOG_RING_INSTANCES);
    }
}
