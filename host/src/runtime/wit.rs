//! Bindings of the packages under `wit/`, made by wasmtime at build time. Nothing here decides anything.

/// `portcullis:identity@0.1.0`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, reason = "generated code")]
pub mod portcullis {
    wasmtime::component::bindgen!({
        path: "../wit/portcullis-identity",
        world: "portcullis:identity/imports",
        imports: { default: async },
    });
}

/// `wasmcloud:identity@0.0.1`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, reason = "generated code")]
pub mod wasmcloud {
    wasmtime::component::bindgen!({
        path: "../wit/wasmcloud-identity",
        world: "wasmcloud:identity/imports",
        imports: { default: async },
    });
}

/// `wasmcloud:messaging@0.2.0`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, reason = "generated code")]
pub mod messaging {
    wasmtime::component::bindgen!({
        path: "../wit/wasmcloud-messaging",
        world: "wasmcloud:messaging/messages",
        imports: { default: async },
        exports: { default: async },
    });
}
