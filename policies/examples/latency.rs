//! Measures decisions and reloads at 10, 1,000 and 10,000 grants over 100 components. Run it with `--release`.

use std::time::{Duration, Instant};

use portcullis_policies::{Caller, ComponentFacts, Destination, PolicySet, Source, SourceKind};

#[expect(clippy::print_stdout, reason = "its output is what it is for")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("grants  compile_ms  send_p50_us  send_p99_us  call_p50_ns");
    for grants in [10, 1_000, 10_000] {
        let source = Source { name: "grants".to_owned(), text: text(grants), kind: SourceKind::Grants };
        let start = Instant::now();
        let set = PolicySet::compile(&[source], 1)?;
        let compile = start.elapsed();
        let slice = set.slice(&facts());
        let sends = sorted(20_000, || {
            let destination = Destination::from_parts("https", "API-0.pay.example:8443");
            destination.is_ok_and(|destination| slice.http_send(&destination, "GET").is_ok())
        })?;
        let calls = sorted(20_000, || slice.call(&Caller::Anonymous).is_ok())?;
        println!(
            "{grants:>6}  {:>10.1}  {:>11.1}  {:>11.1}  {:>11}",
            compile.as_secs_f64() * 1e3,
            quantile(&sends, 50).as_secs_f64() * 1e6,
            quantile(&sends, 99).as_secs_f64() * 1e6,
            quantile(&calls, 50).as_nanos(),
        );
    }
    Ok(())
}

fn text(grants: usize) -> String {
    let grant = |n: usize| {
        format!(
            "[[grant]]\nid = \"g{n}\"\nreason = \"r\"\nowner = \"o\"\ncomponent = \"demo:c{}\"\n\
             http = [\"https://api-{n}.pay.example:8443\"]\ncallers = [\"anonymous\"]\n",
            n % 100
        )
    };
    format!("version = 1\n{}", (0..grants).map(grant).collect::<String>())
}

fn facts() -> ComponentFacts {
    ComponentFacts {
        name: "demo:c0".to_owned(),
        digest: "sha256:00".to_owned(),
        spiffe_id: "spiffe://demo.example/ns/demo/sa/c0".to_owned(),
        signer: "signer".to_owned(),
        signer_group: "team".to_owned(),
        instance: "instance".to_owned(),
    }
}

fn sorted(times: usize, allowed: impl Fn() -> bool) -> Result<Vec<Duration>, &'static str> {
    let mut taken = Vec::with_capacity(times);
    for _ in 0..times {
        let start = Instant::now();
        if !allowed() {
            return Err("a decision that must allow did not");
        }
        taken.push(start.elapsed());
    }
    taken.sort_unstable();
    Ok(taken)
}

fn quantile(sorted: &[Duration], percent: usize) -> Duration {
    sorted.get(sorted.len() * percent / 100).copied().unwrap_or_default()
}
