//! Registries, and what helps to log in at one, that never come to an end: each is left after a while.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use portcullis_tests::patience::promised;
use serde_json::json;

use crate::{Liar, World};

#[test]
fn a_credential_helper_that_never_answers_is_left_after_a_while() {
    let world = World::new();
    let registry = Liar::new(world.answers());
    let path = world.site.file("docker-credential-slow");
    std::fs::write(&path, "#!/bin/sh\nexec sleep 90\n").unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    let config = json!({ "credHelpers": { &registry.address: "slow" } });
    std::fs::write(world.site.file("config.json"), config.to_string()).unwrap();
    let folder = world.site.path().display().to_string();
    let search = format!("{folder}:{}", std::env::var("PATH").unwrap());
    let began = Instant::now();
    let reference = format!("oci://{}/hello:1", registry.address);
    let variables = [("DOCKER_CONFIG", folder.as_str()), ("PATH", search.as_str())];
    let refused = world.site.run_with(&variables, ["pull", &reference, "--out", "pulled.wasm", "--json"]);
    assert_eq!((refused.exit, refused.code().as_str()), (2, "registry.credentials"), "{refused:?}");
    assert!(began.elapsed() < promised(Duration::from_secs(42)), "{:?}", began.elapsed());
}

/// REGISTRY_CALL: it takes the connection, and says nothing.
#[test]
fn a_registry_that_says_nothing_is_left_after_a_while() {
    let world = World::new();
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let took = unreachable(&world, silent.local_addr().unwrap());
    assert!(took < promised(Duration::from_secs(45)), "{took:?}");
}

/// REGISTRY_CONNECT: it does not even take the connection.
#[test]
fn a_registry_that_takes_no_connection_is_left_sooner() {
    let test = "a_registry_that_takes_no_connection_is_left_sooner";
    let Some(full) = Full::listen() else {
        return portcullis_tests::skip(test, "there is no python3", false);
    };
    let took = unreachable(&World::new(), full.address);
    let least = Duration::from_secs(9);
    assert!(took >= least && took < promised(Duration::from_secs(20)), "{took:?}");
}

/// How long a pull from there takes until it is given up.
fn unreachable(world: &World, address: SocketAddr) -> Duration {
    let reference = format!("oci://{address}/hello:1");
    let began = Instant::now();
    let refused = world.site.run_within(300, ["pull", &reference, "--out", "pulled.wasm", "--json"]);
    assert_eq!((refused.exit, refused.code().as_str()), (18, "registry.unreachable"), "{refused:?}");
    began.elapsed()
}

/// A listener that accepts nobody and whose queue is full: the kernel lets further connections wait. Ends when dropped.
struct Full {
    child: Child,
    address: SocketAddr,
    _queue: Vec<TcpStream>,
}

impl Full {
    /// Python's listeners have a queue as short as they want. `None` where there is no Python.
    fn listen() -> Option<Self> {
        use std::io::BufRead as _;
        let script = "import socket, sys\ns = socket.socket()\ns.bind(('127.0.0.1', 0))\ns.listen(0)\n\
                      print(s.getsockname()[1], flush=True)\nsys.stdin.read()";
        let mut python = Command::new("python3");
        python.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = python.spawn().ok()?;
        let mut line = String::new();
        std::io::BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, line.trim().parse().unwrap()));
        let mut queue = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_secs(2)) {
            queue.push(stream);
            assert!(queue.len() < 16, "its queue is never full");
        }
        Some(Self { child, address, _queue: queue })
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
