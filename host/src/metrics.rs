//! Counters and histograms, and the text that Prometheus reads (text exposition format 0.0.4). Decides nothing; names and
//! labels come from this program alone, and what a label's value holds is escaped.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

/// How long things took, in fixed steps from 10 microseconds to a second.
#[derive(Debug, Default)]
pub struct Histogram {
    /// By step; the last one counts what is beyond all of them.
    counts: [AtomicU64; STEPS.len() + 1],
    nanoseconds: AtomicU64,
}

/// What kind of family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// A page of metrics in the making.
#[derive(Debug, Default)]
pub struct Page(String);

/// Name and value of a label.
pub type Label<'a> = (&'a str, &'a str);

impl Counter {
    /// One more.
    pub fn up(&self) {
        self.add(1);
    }

    /// Many more.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// How many there were.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Histogram {
    /// Something took this long.
    pub fn took(&self, time: Duration) {
        let step = STEPS.iter().position(|(most, _)| time <= *most).unwrap_or(STEPS.len());
        if let Some(count) = self.counts.get(step) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }
}

impl Page {
    /// A family of one number with no labels.
    pub fn number(&mut self, name: &str, kind: Kind, help: &str, value: u64) {
        self.family(name, kind, help, [(&[][..], value)]);
    }

    /// A family with a number for each set of labels. A family without samples is left out.
    pub fn family<'a>(
        &mut self,
        name: &str,
        kind: Kind,
        help: &str,
        samples: impl IntoIterator<Item = (&'a [Label<'a>], u64)>,
    ) {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return;
        }
        self.head(name, if kind == Kind::Counter { "counter" } else { "gauge" }, help);
        for (labels, value) in samples {
            self.sample(name, labels, None, &value.to_string());
        }
    }

    /// A family of histograms, in seconds.
    pub fn histograms<'a>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (&'a [Label<'a>], &'a Histogram)>,
    ) {
        self.head(name, "histogram", help);
        for (labels, histogram) in samples {
            let mut sum = 0_u64;
            let ends = STEPS.iter().map(|(_, end)| *end).chain(std::iter::once("+Inf"));
            for (count, end) in histogram.counts.iter().zip(ends) {
                sum = sum.saturating_add(count.load(Ordering::Relaxed));
                self.sample(&format!("{name}_bucket"), labels, Some(("le", end)), &sum.to_string());
            }
            let time = Duration::from_nanos(histogram.nanoseconds.load(Ordering::Relaxed));
            self.sample(&format!("{name}_sum"), labels, None, &time.as_secs_f64().to_string());
            self.sample(&format!("{name}_count"), labels, None, &sum.to_string());
        }
    }

    /// The text.
    pub fn into_text(self) -> String {
        self.0
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[Label<'_>], last: Option<Label<'_>>, value: &str) {
        self.0.push_str(name);
        for (index, (label, text)) in labels.iter().copied().chain(last).enumerate() {
            let _ = write!(self.0, "{}{label}=\"{}\"", if index == 0 { '{' } else { ',' }, escaped(text));
        }
        if !labels.is_empty() || last.is_some() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// The upper end of each step, and how it is written.
const STEPS: [(Duration, &str); 15] = [
    (Duration::from_micros(10), "0.00001"),
    (Duration::from_micros(25), "0.000025"),
    (Duration::from_micros(50), "0.00005"),
    (Duration::from_micros(100), "0.0001"),
    (Duration::from_micros(250), "0.00025"),
    (Duration::from_micros(500), "0.0005"),
    (Duration::from_millis(1), "0.001"),
    (Duration::from_micros(2500), "0.0025"),
    (Duration::from_millis(5), "0.005"),
    (Duration::from_millis(10), "0.01"),
    (Duration::from_millis(25), "0.025"),
    (Duration::from_millis(50), "0.05"),
    (Duration::from_millis(100), "0.1"),
    (Duration::from_millis(250), "0.25"),
    (Duration::from_secs(1), "1"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_as_prometheus_reads_it() {
        let (fast, slow) = (Histogram::default(), Histogram::default());
        fast.took(Duration::from_micros(10));
        fast.took(Duration::from_micros(11));
        slow.took(Duration::from_secs(2));
        let minted = Counter::default();
        minted.add(41);
        minted.up();
        let mut page = Page::default();
        page.family(
            "p_mints_total",
            Kind::Counter,
            "SVIDs minted.",
            [(&[("kind", "x509")][..], minted.get()), (&[("kind", "j\"w\\t\n")][..], 1)],
        );
        page.number("p_instances", Kind::Gauge, "Instances.", 3);
        page.family("p_nothing", Kind::Gauge, "Left out.", []);
        page.histograms("p_seconds", "Time.", [(&[("call", "x509")][..], &fast), (&[][..], &slow)]);
        let text = page.into_text();
        assert_eq!(text, include_str!("metrics/golden.txt"), "{text}");
    }
}
