//! The log of each process: structured, on standard error, filtered by `PORTCULLIS_LOG`.

use tracing_subscriber::EnvFilter;

use crate::config::environment;

/// Starts the log of this process. `role` names the process in each line.
pub fn start(role: &'static str) {
    let filter = environment::read(environment::LOG)
        .unwrap_or_else(|| "warn,portcullis=info,guest=info,async_nats=off".to_owned());
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let format = tracing_subscriber::fmt::format().with_target(false).compact();
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .event_format(Named { role, format })
        .try_init();
}

struct Named<F> {
    role: &'static str,
    format: F,
}

impl<S, N, F> tracing_subscriber::fmt::FormatEvent<S, N> for Named<F>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
    N: for<'a> tracing_subscriber::fmt::FormatFields<'a> + 'static,
    F: tracing_subscriber::fmt::FormatEvent<S, N>,
{
    fn format_event(
        &self,
        ctx: &tracing_subscriber::fmt::FmtContext<'_, S, N>,
        mut writer: tracing_subscriber::fmt::format::Writer<'_>,
        event: &tracing::Event<'_>,
    ) -> std::fmt::Result {
        write!(writer, "{:<10} ", self.role)?;
        self.format.format_event(ctx, writer, event)
    }
}
